import pickle
import shutil

import pytest
from torch.utils.data import DataLoader

from tests.data.formats import FORMATS, as_tars, contents, write_tar
from v2m.data import DATASETS, LabelledImages, find_splits, open_dataset
from v2m.data.errors import UnreadableImageError
from v2m.system.errors import DataError


@pytest.fixture(params=FORMATS)
def any_format(request, image_folder, tmp_path):
    """The image folder in one of the formats, in a place with an unusual name."""
    root = tmp_path / "vält train [x] test" / "data set"
    root.parent.mkdir()
    FORMATS[request.param](image_folder, root)
    return root


def message(source, split, data_dir):
    """The one line of the error of opening a split."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(source), split, data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_format_gives_the_same_images_and_labels(any_format, image_folder, tmp_path):
    for split, count in (("train", 24), ("val", 12)):
        data = open_dataset(str(any_format), split, tmp_path / "cache")
        assert isinstance(data, LabelledImages)
        assert (len(data), data.classes) == (count, ["blue", "green", "red"])
        assert sorted(data.targets) == sorted(data[i][1] for i in range(count))
        assert len({data.name(i) for i in range(count)}) == count
        assert all(data.name(i).startswith(str(any_format)) for i in range(count))
        assert contents(any_format, split, tmp_path / "cache") == contents(image_folder, split, tmp_path)


def test_every_format_is_read_by_worker_processes(any_format, tmp_path):
    data = open_dataset(str(any_format), "val", tmp_path / "cache")
    here = [(data.read(i).tobytes(), data.targets[i]) for i in range(len(data))]
    data.transform = bytes_of
    assert [tuple(pair) for pair in DataLoader(data, None, num_workers=2)] == here
    again = pickle.loads(pickle.dumps(data))
    assert [again[i] for i in range(len(again))] == here
    assert again.name(11) == data.name(11)


def test_an_error_comes_back_from_a_worker_process(image_folder, tmp_path):
    (image_folder / "val" / "blue" / "0.png").write_bytes(b"")
    data = open_dataset(str(image_folder), "val", tmp_path)
    with pytest.raises(UnreadableImageError, match=r"blue/0\.png: not a readable image \(empty, or of no"):
        next(iter(DataLoader(data, None, num_workers=1)))


def bytes_of(image):
    return image.tobytes()


def test_every_format_needs_its_validation_images(any_format, tmp_path):
    for path in [*any_format.glob("val*"), *any_format.glob("data/val*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert len(open_dataset(str(any_format), "train", tmp_path / "cache")) == 24
    assert "has no folder val/" in message(any_format, "val", tmp_path / "cache")


@pytest.mark.parametrize("format", FORMATS)
def test_labels_are_those_of_the_training_classes_in_every_format(format, image_folder, tmp_path):
    shutil.rmtree(image_folder / "val" / "blue")
    FORMATS[format](image_folder, tmp_path / "other")
    data = open_dataset(str(tmp_path / "other"), "val", tmp_path / "cache")
    assert data.classes == ["blue", "green", "red"]
    assert sorted(data.targets) == [1] * 4 + [2] * 4
    for i in range(len(data)):
        assert data.read(i).resize((1, 1)).getpixel((0, 0))[2 - data.targets[i]] > 150


@pytest.mark.parametrize("format", ["folder", "tars", "tar shards"])
def test_a_class_that_only_validation_has_is_an_error(format, image_folder, tmp_path):
    (image_folder / "val" / "green").rename(image_folder / "val" / "purple")
    FORMATS[format](image_folder, tmp_path / "other")
    assert "classes that are not known: purple" in message(tmp_path / "other", "val", tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_classes_of_a_model_count(format, image_folder, tmp_path):
    FORMATS[format](image_folder, tmp_path / "other")
    source = str(tmp_path / "other")
    data = open_dataset(source, "val", tmp_path / "cache", classes=["red", "white", "green", "blue"])
    assert sorted(set(data.targets)) == [0, 2, 3]
    assert data.classes[data.targets[0]] == "blue"
    with pytest.raises(DataError, match="no images of the classes white"):
        open_dataset(source, "train", tmp_path / "cache", classes=["red", "white", "green", "blue"])
    with pytest.raises(DataError, match="classes that are not known: blue"):
        open_dataset(source, "val", tmp_path / "cache", classes=["red", "green"])


@pytest.mark.parametrize("format", FORMATS)
def test_a_corrupt_image_is_an_error_and_not_replaced(format, image_folder, tmp_path):
    broken = image_folder / "val" / "green" / "0.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    FORMATS[format](image_folder, tmp_path / "other")
    data = open_dataset(str(tmp_path / "other"), "val", tmp_path / "cache")
    assert len(data) == 12
    failures = []
    for i in range(len(data)):
        try:
            data[i]
        except UnreadableImageError as error:
            failures.append((i, error))
    ((index, error),) = failures
    assert data.targets[index] == 1
    assert error.name == data.name(index)
    assert str(error) == f"{error.name}: not a readable image ({error.reason})"


@pytest.mark.parametrize("val", ["val", "validation", "valid", "test"])
def test_validation_has_many_names(image_folder, tmp_path, val):
    (image_folder / "val").rename(image_folder / val)
    assert len(open_dataset(str(image_folder), "val", tmp_path)) == 12
    assert list(find_splits(str(image_folder), tmp_path)) == ["train", val]


def test_validation_goes_before_test(image_folder, tmp_path):
    shutil.copytree(image_folder / "val", image_folder / "test")
    shutil.rmtree(image_folder / "test" / "red")
    assert len(open_dataset(str(image_folder), "val", tmp_path)) == 12
    assert list(find_splits(str(image_folder), tmp_path)) == ["train", "val", "test"]


def test_a_folder_goes_before_the_tar_that_it_was_in(image_folder, tmp_path):
    (image_folder / "train.tar.gz").write_bytes(b"not looked at")
    (image_folder / "val.tar").write_bytes(b"not looked at")
    assert len(open_dataset(str(image_folder), "train", tmp_path)) == 24
    assert len(open_dataset(str(image_folder), "val", tmp_path)) == 12


def test_splits_may_be_of_different_formats(image_folder, tmp_path):
    as_tars(image_folder, tmp_path / "tars")
    shutil.rmtree(image_folder / "val")
    (tmp_path / "tars" / "val.tar").rename(image_folder / "val.tar")
    assert len(open_dataset(str(image_folder), "val", tmp_path)) == 12


def test_names_of_files_say_the_split(image_folder, tmp_path):
    as_tars(image_folder, tmp_path / "tars")
    (tmp_path / "tars" / "train.tar").rename(tmp_path / "tars" / "birds-TRAIN_0001.tar")
    (tmp_path / "tars" / "val.tar").rename(tmp_path / "tars" / "birds-validation_0001.tar")
    write_tar(tmp_path / "tars" / "trainer.tar", {"a/b.png": b""})
    write_tar(tmp_path / "tars" / ".train.tar", {"a/b.png": b""})
    assert len(open_dataset(str(tmp_path / "tars"), "train", tmp_path)) == 24
    assert len(open_dataset(str(tmp_path / "tars"), "val", tmp_path)) == 12


def test_compressed_tars_are_to_be_unpacked(image_folder, tmp_path):
    as_tars(image_folder, tmp_path / "tars")
    (tmp_path / "tars" / "train.tar").rename(tmp_path / "tars" / "train.tar.gz")
    assert "train.tar.gz is compressed, unpack it to train.tar" in message(
        tmp_path / "tars", "train", tmp_path
    )


def test_trouble_is_named(image_folder, tmp_path):
    place = f"neither a dataset ({', '.join(DATASETS)}) nor a folder"
    assert place in message("/no/such/place", "train", tmp_path)
    assert message("digitz", "train", tmp_path).endswith("; did you mean digits?")
    (image_folder / "train").rename(image_folder / "trian")
    assert "no folder train/" in message(image_folder, "train", tmp_path)
    assert "no folder train/" in message(image_folder, "val", tmp_path)
    assert "split is 'vall', expected 'train' or 'val'" in message(image_folder, "vall", tmp_path)
