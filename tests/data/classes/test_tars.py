import gzip
import io
import os
import tarfile

import pytest
from PIL import Image

from tests.data.formats import as_tars, as_webdataset, contents, write_tar
from v2m.data import open_dataset
from v2m.data.errors import UnreadableImageError
from v2m.system.errors import DataError


@pytest.fixture
def png():
    file = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def tars(image_folder, tmp_path):
    as_tars(image_folder, tmp_path / "tars")
    return tmp_path / "tars"


def message(root, split="train"):
    """The one line of the error of opening a split."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(root), split, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_image_is_named_by_tar_and_member(tars, tmp_path):
    data = open_dataset(str(tars), "val", tmp_path)
    assert data.name(0) == f"{tars / 'val.tar'}:blue/000.png"


def test_a_folder_packed_as_it_is_is_read(image_folder, tmp_path):
    (image_folder / "train" / "red" / "._0.png").write_bytes(b"what macOS leaves")
    (image_folder / "train" / "red" / ("long name " * 12)).mkdir()
    (image_folder / "train" / "red" / "0.png").rename(
        image_folder / "train" / "red" / ("long name " * 12) / "ünusual.PNG"
    )
    (tmp_path / "tars").mkdir()
    for split in ("train", "val"):
        with tarfile.open(tmp_path / "tars" / f"{split}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(image_folder / split, split)
    for split in ("train", "val"):
        assert contents(tmp_path / "tars", split, tmp_path) == contents(image_folder, split, tmp_path)
    assert any(
        "ünusual" in open_dataset(str(tmp_path / "tars"), "train", tmp_path).name(i) for i in range(24)
    )


def test_one_class_with_folders_in_it_stays_one_class(tmp_path, png):
    write_tar(tmp_path / "train.tar", {"cat/a/1.png": png, "cat/b/2.png": png})
    assert open_dataset(str(tmp_path), "train", tmp_path).classes == ["cat"]


def test_empty_class_folders_are_named_in_training_and_allowed_in_validation(tmp_path, png):
    write_tar(tmp_path / "train.tar", {"cat/1.png": png, "dog/1.png": png})
    write_tar(tmp_path / "val.tar", {"dog/2.png": png})
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}.tar", "a") as tar:
            folder = tarfile.TarInfo("cat" if split == "val" else "bee")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
    assert "train.tar has no images of the classes bee" in message(tmp_path)
    assert open_dataset(str(tmp_path), "val", tmp_path, ["cat", "dog"]).targets == [1]


def test_damaged_tars_are_named(tars):
    path = tars / "train.tar"
    content = path.read_bytes()
    start = content.index(b"blue/003.png")
    damages = {
        "cut within an image": content[: start + 700],
        "cut between images": content[:start],
        "cut within a header": content[: start + 100],
        "a bad header": content[:start] + b"x" * 512 + content[start + 512 :],
        "two tars in one": content + content,
        "empty": b"",
        "gzip": gzip.compress(content),
        "no tar": b"x" * 2000,
    }
    for damage, damaged in damages.items():
        path.write_bytes(damaged)
        assert "train.tar is not a whole, uncompressed tar (" in message(tars), damage


def test_members_that_cannot_be_counted_are_named(tars):
    with tarfile.open(tars / "val.tar", "a") as tar:
        link = tarfile.TarInfo("blue/link.png")
        link.type, link.linkname = tarfile.LNKTYPE, "blue/000.png"
        tar.addfile(link)
    assert "val.tar has blue/link.png as a link or in pieces" in message(tars, "val")
    with tarfile.open(tars / "train.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("blue/000.png"))
    assert "train.tar has blue/000.png twice" in message(tars)


def test_images_without_a_class_are_named(tmp_path, png):
    write_tar(tmp_path / "train.tar", {"1.png": png})
    assert "train.tar:1.png is in no class folder, and there are no .cls files" in message(tmp_path)
    write_tar(tmp_path / "train.tar", {"notes.txt": b"none"})
    assert "train.tar holds no images (.jpg" in message(tmp_path)


def test_webdataset_labels_are_indices_or_names(image_folder, tmp_path, png):
    as_webdataset(image_folder, tmp_path / "wds", names=False)
    data = open_dataset(str(tmp_path / "wds"), "val", tmp_path)
    assert data.classes == ["0", "1", "2"]
    assert data.name(0) == f"{tmp_path / 'wds' / 'val-000000.tar'}:000000.png"
    write_tar(
        tmp_path / "named" / "train.tar", {"a.png": png, "a.cls": b"dog\n", "b.png": png, "b.cls": b"cat"}
    )
    data = open_dataset(str(tmp_path / "named"), "train", tmp_path)
    assert (data.classes, data.targets) == (["cat", "dog"], [1, 0])


def test_webdataset_validation_without_some_classes_keeps_the_training_labels(tmp_path, png):
    write_tar(tmp_path / "train-0.tar", {"a.png": png, "a.cls": b"0", "b.png": png, "b.cls": b"2"})
    write_tar(tmp_path / "val-0.tar", {"a.webp": png, "a.cls": b"1"})
    data = open_dataset(str(tmp_path), "val", tmp_path)
    assert (data.classes, data.targets, data.read(0).size) == (["0", "1", "2"], [1], (9, 7))
    write_tar(tmp_path / "val-0.tar", {"a.png": png, "a.cls": b"3"})
    assert "val-0.tar has classes that are not known: 3" in message(tmp_path, "val")
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    assert "val-0.tar:a.png has label 3, expected one of 3 classes" in message(tmp_path, "val")


def test_other_files_of_a_sample_are_left_alone(tmp_path, png):
    files = {
        "x/1.jpg": png,
        "x/1.cls": b"0",
        "x/1.seg.png": png,
        "x/1.json": b"{}",
        "x/.1.cls": b"",
        "read.me": b"",
    }
    write_tar(tmp_path / "train.tar", files)
    data = open_dataset(str(tmp_path), "train", tmp_path)
    assert [data.name(i) for i in range(len(data))] == [f"{tmp_path / 'train.tar'}:x/1.jpg"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["a.png", "a.cls", "b.png"], "has b.png without its .cls"),
        (["a.png", "a.cls", "b.cls"], "has b.cls without its image"),
        (["a.png", "a.jpg", "a.cls"], "has two images for a: a.png, a.jpg"),
    ],
)
def test_incomplete_samples_are_named(tmp_path, png, files, words):
    write_tar(tmp_path / "train.tar", {name: b"0" if name.endswith("cls") else png for name in files})
    assert words in message(tmp_path)


@pytest.mark.parametrize("label", [b"", b"a\nb", b"\xff\xfe", b"x" * 2000])
def test_labels_that_are_none_are_named(tmp_path, png, label):
    write_tar(tmp_path / "train.tar", {"a.png": png, "a.cls": label})
    assert "train.tar:a.cls is not a class, expected an index or a name" in message(tmp_path)


def test_names_of_two_unicode_forms_are_one(tmp_path, png):
    write_tar(tmp_path / "train.tar", {"caf\u00e9/a.png": png, "cafe\u0301/b.png": png, "tea/c.png": png})
    data = open_dataset(str(tmp_path), "train", tmp_path)
    assert (data.classes, data.targets) == (["caf\u00e9", "tea"], [0, 0, 1])


def test_keys_and_labels_of_two_unicode_forms_are_one(tmp_path, png):
    label = "cafe\u0301".encode("utf-8-sig")
    write_tar(
        tmp_path / "train.tar", {"\u00e9.png": png, "e\u0301.cls": label, "b.png": png, "b.cls": b"tea"}
    )
    (tmp_path / "classes.txt").write_bytes("tea\ncaf\u00e9\n".encode("utf-8-sig"))
    data = open_dataset(str(tmp_path), "train", tmp_path)
    assert (data.classes, data.targets) == (["tea", "caf\u00e9"], [1, 0])


def test_shards_are_all_of_one_kind(tmp_path, png):
    write_tar(tmp_path / "train-0.tar", {"a.png": png, "a.cls": b"0"})
    write_tar(tmp_path / "train-1.tar", {"cat/a.png": png})
    assert "train-1.tar has no .cls files, unlike other shards" in message(tmp_path)


def test_files_of_the_system_are_left_out_and_images_that_are_not_read_are_told(tmp_path, png):
    files = [
        "cat/1.jfif",
        "cat/2.heic",
        "cat/@eaDir/1.jpg",
        "__MACOSX/cat/3.png",
        "@eaDir/4.png",
        "cat/Thumbs.db",
    ]
    write_tar(tmp_path / "train.tar", dict.fromkeys(files, png))
    data = open_dataset(str(tmp_path), "train", tmp_path)
    assert (len(data), data.classes) == (1, ["cat"])
    (line,) = data.warnings
    assert line.startswith(f"{tmp_path / 'train.tar'}: 1 file left out")
    assert f"first {tmp_path / 'train.tar'}:cat/2.heic" in line
    write_tar(tmp_path / "train.tar", {"cat/2.heic": png})
    assert "train.tar holds no images (.jpg" in (told := message(tmp_path))
    assert "1 file left out" in told


def member(name, content, size=None, kind=tarfile.REGTYPE):
    """A file of a tar as bytes, with the size that its header claims."""
    info = tarfile.TarInfo()
    info.type = kind
    info.size = len(content) if size is None else size
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[: len(name)] = name
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    ("kind", "content", "size", "reason"),
    [
        (tarfile.XHDTYPE, b"x", 8 * 10**9, "header of more than"),
        (tarfile.XGLTYPE, b"x", 2**70, "header of more than"),
        (tarfile.GNUTYPE_LONGNAME, b"x", 8 * 10**9, "header of more than"),
        (tarfile.XHDTYPE, b"1" * 900_000, None, "number of more than 512 digits"),
        (tarfile.XHDTYPE, b"21 hdrcharset=\xff\xfe\xfd\xfc\n", None, "utf-8"),
        (tarfile.XHDTYPE, b"36 size=9999999999999999999999999999\n", None, "int"),
        (tarfile.REGTYPE, b"", -1024, "negative size"),
        (tarfile.REGTYPE, b"", 2**80, "int"),
        (tarfile.REGTYPE, b"", 10**9, "unexpected end"),
    ],
)
def test_headers_that_claim_too_much_are_refused(tmp_path, png, kind, content, size, reason):
    path = tmp_path / "train.tar"
    odd = member(b"cat/2.png", content, size, kind)
    path.write_bytes(member(b"cat/1.png", png) + odd + member(b"cat/3.png", png) + bytes(10240))
    text = message(tmp_path)
    assert f"{path} is not a whole, uncompressed tar (" in text
    assert reason in text


def test_chains_of_headers_end(tmp_path, png):
    chain = member(b"x", b"name", kind=tarfile.GNUTYPE_LONGNAME) * 5000
    (tmp_path / "train.tar").write_bytes(chain + member(b"cat/1.png", png) + bytes(10240))
    assert "train.tar is not a whole, uncompressed tar (" in message(tmp_path)


def test_absolute_paths_are_taken_from_the_top_and_those_that_lead_out_are_left_out(tmp_path, png):
    names = {"/cat/1.png": png, "/dog/1.png": png, "../../bee/1.png": png, "ant/../../fly/1.png": png}
    write_tar(tmp_path / "train.tar", names)
    data = open_dataset(str(tmp_path), "train", tmp_path)
    assert (data.classes, len(data)) == (["cat", "dog"], 2)


def test_classes_whose_names_are_no_text_are_named(tmp_path, png):
    (tmp_path / "train.tar").write_bytes(member(b"ca\xff/1.png", png) + bytes(10240))
    assert "has classes whose names are not UTF-8: ca\\udcff" in message(tmp_path)


def test_pipes_are_no_tars(tmp_path, png):
    write_tar(tmp_path / "train-0.tar", {"cat/1.png": png})
    os.mkfifo(tmp_path / "train-1.tar")
    assert "train-1.tar is no regular file" in message(tmp_path)


def test_huge_members_are_unreadable(tmp_path, png):
    path = tmp_path / "train.tar"
    path.write_bytes(member(b"cat/1.png", png) + member(b"cat/2.png", b"", 2**32))
    with open(path, "rb+") as file:
        file.truncate(path.stat().st_size + 2**32 + 10240)
    if path.stat().st_blocks * 512 > 2**30:
        pytest.skip("this file system has no holes in files")
    data = open_dataset(str(tmp_path), "train", tmp_path)
    assert data.read(0).size == (9, 7)
    with pytest.raises(
        UnreadableImageError, match=r"train\.tar:cat/2\.png: .*4,294,967,296 bytes, expected up"
    ):
        data.read(1)


@pytest.mark.parametrize("label", [b"1000000000", b"1" + b"0" * 30, b"65536"])
def test_indices_are_bounded_where_no_list_says_what_they_count(tmp_path, png, label):
    write_tar(tmp_path / "train.tar", {"a.png": png, "a.cls": b"0", "b.png": png, "b.cls": label})
    text = message(tmp_path)
    assert f"train.tar:b.png has label {label.decode()}, expected one below 65,536" in text
    assert "classes.txt" in text
