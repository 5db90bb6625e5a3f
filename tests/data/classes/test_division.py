import json
import os
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from v2m.data import find_splits, open_dataset
from v2m.data.classes.division import Division, Kept, read_kept
from v2m.system.errors import DataError


def make_flat(root, **counts):
    """A folder of class folders, with so many different images of each class."""
    generator = np.random.default_rng(len(counts))
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            save(root / name / f"{i}.png", generator.integers(0, 2**24))
    return root


def save(path, colour):
    Image.new("RGB", (3, 2), int(colour)).save(path)


def sides(root, **division):
    """The names of both sides, counted from the folder."""
    found = []
    for split in ("train", "val"):
        data = open_dataset(str(root), split, root, division=Division(**division))
        found.append([os.path.relpath(data.name(i), root) for i in range(len(data))])
    return found


def test_every_class_has_its_share_on_each_side_and_no_image_is_on_both(tmp_path):
    root = make_flat(tmp_path / "flat", ant=20, bee=10, cat=3, dog=2)
    train, val = sides(root)
    assert sorted(train + val) == sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    assert Counter(name.split("/")[0] for name in val) == dict(ant=4, bee=2, cat=1, dog=1)
    data = open_dataset(str(root), "val", root, division=Division())
    assert data.classes == ["ant", "bee", "cat", "dog"]
    assert [data.classes[t] for t in data.targets] == [name.split("/")[0] for name in val]


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.25, 3), (0.5, 5), (0.99, 9)])
def test_the_share_counts_in_images_of_a_class_and_leaves_one_on_each_side(tmp_path, share, count):
    _, val = sides(make_flat(tmp_path / "flat", ant=10, bee=10), val_share=share)
    assert Counter(name[:3] for name in val) == dict(ant=count, bee=count)


def test_the_split_follows_from_names_and_seed_alone(tmp_path, monkeypatch):
    root = make_flat(tmp_path / "flat", ant=30, bee=30)
    before = sides(root)
    assert sides(root, seed=1)[1] != before[1]
    # In another place, written in another order, named by a relative path.
    other = tmp_path / "elsewhere" / "moved"
    for path in sorted(root.rglob("*.png"), reverse=True):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other / path.parent.name)
    assert sides(other) == before
    monkeypatch.chdir(other)
    for source in (".", "../moved", "./"):
        data = open_dataset(source, "val", tmp_path, division=Division())
        assert [os.path.relpath(data.name(i)) for i in range(len(data))] == before[1]


def test_an_image_that_is_added_moves_at_most_one_other_of_its_class(tmp_path):
    root = make_flat(tmp_path / "flat", ant=17, bee=23)
    _, before = sides(root)
    for number in range(12):
        save(root / "ant" / f"new{number}.png", 1000 + number)
        _, val = sides(root)
        old = {name for name in val if "new" not in name}
        assert len(old.symmetric_difference(n for n in before if "new" not in n)) <= 1
        assert [n for n in val if n.startswith("bee")] == [n for n in before if n.startswith("bee")]
        before = val


def test_files_of_the_same_bytes_are_on_one_side(tmp_path):
    root = make_flat(tmp_path / "flat", ant=12, bee=12)
    for number in range(0, 12, 2):
        shutil.copy(root / "ant" / f"{number}.png", root / "ant" / f"copy{number}.png")
        shutil.copy(root / "bee" / f"{number}.png", root / "ant" / f"bee{number}.png")  # of another class
    for seed in range(4):
        train, val = ({(root / name).read_bytes() for name in side} for side in sides(root, seed=seed))
        assert train
        assert val
        assert not train & val


def test_a_class_of_few_different_images_has_one_on_each_side(tmp_path):
    root = make_flat(tmp_path / "flat", ant=2, bee=10)
    for number in range(5):
        for image in (0, 1):
            shutil.copy(root / "ant" / f"{image}.png", root / "ant" / f"copy{image}-{number}.png")
    train, val = sides(root)
    assert Counter(name[:3] for name in val) == dict(ant=6, bee=2)
    assert Counter(name[:3] for name in train) == dict(ant=6, bee=8)


def test_one_image_of_a_class_is_trained_on(tmp_path):
    train, val = sides(make_flat(tmp_path / "flat", ant=1, bee=4))
    assert ("ant/0.png" in train, len(val)) == (True, 1)
    with pytest.raises(DataError, match="no class with two different images, so none can be validated on"):
        sides(make_flat(tmp_path / "lone", ant=1, bee=1))


def test_hostile_names_are_divided(tmp_path):
    root = make_flat(tmp_path / "flat", ant=6, bee=6)
    names = [
        "-rf.png",
        " .png",
        "a\nb.png",
        "$(id).png",
        "é.png",
        "e\u0301.png",
        "\u202e.png",
        "x" * 200 + ".png",
    ]
    for number, name in enumerate(names):
        save(root / "ant" / name, number)
    raw = os.fsencode(root / "ant") + b"/\xff.png"
    with open(raw, "wb") as file:
        file.write((root / "ant" / "0.png").read_bytes()[:-1])
    train, val = sides(root)
    assert len(train + val) == len(set(train + val)) == 6 + 6 + len(names) + 1
    assert ("ant/é.png" in val) == ("ant/e\u0301.png" in val)  # one name to some systems
    kept = open_dataset(str(root), "train", root, division=Division()).kept
    kept.write(tmp_path)
    again = read_kept(tmp_path)
    assert again == kept
    assert read_kept(tmp_path / "flat") is None
    data = open_dataset(str(root), "val", root, division=again)
    assert [os.path.relpath(data.name(i), root) for i in range(len(data))] == val


def test_kept_images_are_validated_on_whatever_was_added_or_is_gone(tmp_path):
    root = make_flat(tmp_path / "flat", ant=10, bee=10)
    kept = open_dataset(str(root), "train", root, division=Division()).kept
    gone, stays = kept.val[0], kept.val[1:]
    (root / gone).unlink()
    (root / kept.train[0]).unlink()
    for number in range(20):
        save(root / "bee" / f"new{number}.png", number)
    val = open_dataset(str(root), "val", root, division=kept)
    assert [os.path.relpath(val.name(i), root) for i in range(len(val))] == stays
    assert val.warnings == [f"{root}: 1 of 4 validation images are gone: {gone}"]
    train = open_dataset(str(root), "train", root, division=kept)
    assert len(train) == 15 + 20
    assert [line.partition(": ")[2] for line in train.warnings] == [
        "20 images are new since the split was made, to train on",
        "1 of 16 training images are gone",
    ]
    # What is gone stays in the list: were it to come back, it would not be trained on.
    assert train.kept.val == kept.val
    assert set(train.kept.train) > set(kept.train)
    for name in stays:
        (root / name).unlink()
    with pytest.raises(DataError, match="has none of the images to validate on: "):
        open_dataset(str(root), "val", root, division=kept)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"val_share": 0.2}', "[" * 100_000, json.dumps(dict(vars(Kept()), val=[3]))],
)
def test_a_damaged_list_is_named(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=r"split\.json"):
        read_kept(tmp_path)


def test_validation_images_are_made_of_the_training_images_where_there_are_none(image_folder, tmp_path):
    before = len(open_dataset(str(image_folder), "train", tmp_path, division=Division()))
    shutil.rmtree(image_folder / "val")
    train, val = (open_dataset(str(image_folder), s, tmp_path, division=Division()) for s in ("train", "val"))
    assert (before, len(train), len(val)) == (24, 18, 6)
    assert train.notes == [
        f"no validation images in {image_folder}: of 24 images of 3 classes, 18 are to train on and "
        "6 to validate on (val_share 0.2, split_seed 0)"
    ]
    with pytest.raises(DataError, match="has no folder val/"):
        open_dataset(str(image_folder), "val", tmp_path)


@pytest.mark.parametrize("names", [("Train", "Valid"), ("training", "testing"), ("TRAIN", "Test")])
def test_splits_are_found_by_the_names_that_people_give_them(image_folder, tmp_path, names):
    for before, after in zip(("train", "val"), names, strict=True):
        (image_folder / before).rename(image_folder / after)
    for split, count in (("train", 24), ("val", 12)):
        assert len(open_dataset(str(image_folder), split, tmp_path, division=Division())) == count


def test_images_to_test_on_without_classes_are_left_alone(image_folder, tmp_path):
    shutil.rmtree(image_folder / "val")
    (image_folder / "test").mkdir()
    save(image_folder / "test" / "1.png", 3)
    assert list(find_splits(str(image_folder), tmp_path, division=Division())) == ["train", "val"]
    assert len(open_dataset(str(image_folder), "val", tmp_path, division=Division())) == 6


def test_classes_may_be_named_like_splits(tmp_path):
    root = make_flat(tmp_path / "vehicles", train=5, plane=5, test=5)
    train, val = sides(root)
    assert {name.split("/")[0] for name in train} == {"train", "plane", "test"}
    assert len(val) == 3


def test_what_lies_beside_classes_is_no_class(tmp_path):
    root = make_flat(tmp_path / "flat", ant=5, bee=5)
    make_flat(root / "runs", first=1)
    make_flat(root / ".cache", first=1)
    save(root / "logo.png", 0)
    data = open_dataset(str(root), "train", root, division=Division())
    assert data.classes == ["ant", "bee"]
    assert data.warnings == [f"{root}: 1 beside the class folders left out, first logo.png"]
    (root / "notes").mkdir()
    with pytest.raises(DataError, match="has no images of the classes notes"):
        open_dataset(str(root), "train", root, division=Division())


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ([], "no folder train/, nor train.*, nor class folders with images; expected <class>/<image>"),
        (["a"], "images, but no class folders; expected <class>/<image>, train/<class>/<image>, or a table"),
        (["images/a", "masks/a"], "has images and masks of no split; .* with --task segmentation"),
    ],
)
def test_folders_that_hold_no_classes_are_named(tmp_path, folders, words):
    for name in folders:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / f"{name}.png", 0)
    with pytest.raises(DataError, match=words):
        open_dataset(str(tmp_path), "train", tmp_path, division=Division())


def test_a_table_in_the_folder_is_pointed_to(tmp_path):
    save(tmp_path / "a.png", 0)
    (tmp_path / "labels.csv").write_text("image,label\na.png,ant\n")
    with pytest.raises(DataError, match=r"is it --data .*/labels\.csv\?"):
        open_dataset(str(tmp_path), "train", tmp_path, division=Division())
