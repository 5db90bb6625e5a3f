"""Folders of images with masks: layouts, labels, and what can be wrong with them."""

import numpy as np
import pytest
import torch
from PIL import Image

from v2m.data.errors import UnreadableImageError
from v2m.data.masks.open import open_masks
from v2m.system.errors import DataError

LABELS = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)


def write_image(path, height=2, width=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)


def write_mask(path, labels=LABELS):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def write_pair(root, name="a", labels=LABELS):
    write_image(root / "images" / "train" / f"{name}.png")
    write_mask(root / "masks" / "train" / f"{name}.png", labels)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nsea\nsand\n")
    write_pair(tmp_path)
    return tmp_path


@pytest.mark.parametrize("masks", ["masks", "annotations", "labels"])
@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("val", "validation"), ("val", "test")])
def test_layouts(tmp_path, masks, layout, split, name):
    (tmp_path / "labels.txt").write_text("sky\nsea\nsand\n")
    for stem in ("b", "sub/a.1"):
        write_image(tmp_path / layout.format(kind="images", split=name) / f"{stem}.jpg")
        write_mask(tmp_path / layout.format(kind=masks, split=name) / f"{stem}.png")
    data = open_masks(str(tmp_path), split)
    assert len(data) == 2
    assert data.classes == ["sky", "sea", "sand"]
    assert data.name(1).endswith("a.1.jpg")
    image, labels = data[1]
    assert image.mode == "RGB"
    assert labels.dtype == torch.int64
    assert labels.tolist() == LABELS.tolist()


def test_ade20k(tmp_path):
    rows = [
        "Idx\tRatio\tTrain\tVal\tStuff\tName",
        "1\t0.2\t11\t1\t1\twall",
        "2\t0.1\t9\t1\t1\tbuilding, edifice",
    ]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    for split in ("training", "validation"):
        write_image(tmp_path / "images" / split / "ADE_1.jpg")
        write_mask(tmp_path / "annotations" / split / "ADE_1.png", LABELS % 255)
    for split in ("train", "val"):
        data = open_masks(str(tmp_path), split)
        assert data.classes == ["wall", "building"]
        assert data[0][1].tolist() == [[255, 0, 1], [1, 255, 255]]
    as_they_are = open_masks(str(tmp_path), "val", label_map={2: 1})
    assert as_they_are[0][1].tolist() == [[0, 1, 1], [1, 0, 0]]


def test_ade20k_without_its_list(tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(f"class {i}" for i in range(150)))
    write_image(tmp_path / "images" / "training" / "a.jpg")
    write_mask(tmp_path / "annotations" / "training" / "a.png", np.array([[0, 1, 150]] * 2, np.uint8))
    assert open_masks(str(tmp_path), "train")[0][1].tolist() == [[255, 0, 149]] * 2


def test_label_map(folder):
    data = open_masks(str(folder), "train", label_map={0: 255, 2: 0, 255: 1})
    assert data[0][1].tolist() == [[255, 1, 0], [0, 1, 255]]


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_modes(folder, mode):
    labels = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
    image = Image.fromarray(labels.astype(np.uint16) if mode == "I;16" else labels)
    if mode == "P":
        image.putpalette([9, 9, 9, 200, 0, 0])
    if mode == "1":
        image = Image.fromarray(labels.astype(bool))
    image.save(folder / "masks" / "train" / "a.png")
    with Image.open(folder / "masks" / "train" / "a.png") as written:
        assert written.mode == mode
    assert open_masks(str(folder), "train")[0][1].tolist() == labels.tolist()


def test_labels_of_16_bits(folder):
    write_pair(folder, labels=np.array([[0, 1000, 2]] * 2, np.uint16))
    data = open_masks(str(folder), "train", ignore_index=1000)
    assert data[0][1].tolist() == [[0, 1000, 2]] * 2


@pytest.mark.parametrize("value", [-5, 2**16, 10**9])
def test_values_of_32_bits_are_no_labels(folder, value):
    labels = np.array([[0, value, 2]] * 2, np.int32)
    Image.fromarray(labels).save(folder / "masks" / "train" / "a.png", format="TIFF")
    with pytest.raises(UnreadableImageError, match=rf"a.png: .*has the value {value}, expected 0 to 65535"):
        open_masks(str(folder), "train")[0]


def test_a_mask_of_another_size_is_not_decoded(folder, monkeypatch):
    write_mask(folder / "masks" / "train" / "a.png", np.zeros((400, 300), np.uint8))
    data = open_masks(str(folder), "train")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    monkeypatch.setattr("v2m.data.masks.dataset.read_image", lambda path: Image.new("RGB", (3, 2)))
    with pytest.raises(UnreadableImageError, match="mask is 300x400 pixels, the image 3x2"):
        data[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no classes"),
        ("Idx\tName\n", "it has no classes"),
        ("Idx\tName\n1\tsky\n2\t, sea", "line 3"),
    ],
)
def test_a_list_of_ade20k_that_lacks_something_is_named(folder, text, reason):
    (folder / "classes.txt").unlink()
    (folder / "objectInfo150.txt").write_text(text)
    with pytest.raises(DataError, match=rf"^data: .*objectInfo150.txt is not as ADE20K has it: {reason}"):
        open_masks(str(folder), "train")


def test_no_labelled_pixel(folder):
    write_pair(folder, labels=np.full((2, 3), 255, np.uint8))
    assert open_masks(str(folder), "train")[0][1].unique().tolist() == [255]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.zeros((2, 3, 3), np.uint8), r"mask has RGB pixels, expected one number each"),
        (np.zeros((3, 2), np.uint8), r"mask is 2x3 pixels, the image 3x2"),
        (np.full((2, 3), 7, np.uint8), r"label 7 is neither one of 3 classes.* nor the ignore index 255"),
        (None, "empty, or of no known format"),
    ],
)
def test_unusable_masks(folder, labels, reason):
    if labels is None:
        (folder / "masks" / "train" / "a.png").write_bytes(b"")
    else:
        write_pair(folder, labels=labels)
    with pytest.raises(UnreadableImageError, match=reason) as error:
        open_masks(str(folder), "train")[0]
    assert error.value.name.endswith("masks/train/a.png")
    assert "\n" not in str(error.value)


def test_files_that_are_gone_or_damaged(folder):
    data = open_masks(str(folder), "train")
    (folder / "masks" / "train" / "a.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"masks/train/a\.png: .*No such file"):
        data[0]
    (folder / "images" / "train" / "a.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"images/train/a\.png"):
        data[0]


def test_pairs_must_be_complete(folder):
    write_image(folder / "images" / "train" / "b.jpg")
    write_image(folder / "images" / "train" / "c.jpg")
    with pytest.raises(DataError, match=r"images without a mask \(\.png\) in .*masks/train: b, c"):
        open_masks(str(folder), "train")
    for name in "bcd":
        write_mask(folder / "masks" / "train" / f"{name}.png")
    with pytest.raises(DataError, match=r"masks without an image in .*images/train: d"):
        open_masks(str(folder), "train")


def test_two_images_of_one_name(folder):
    write_image(folder / "images" / "train" / "a.jpg")
    with pytest.raises(DataError, match="have one name"):
        open_masks(str(folder), "train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "train"), r"'nowhere' is neither a dataset \(camvid\) nor a folder"),
        (("{folder}", "val"), "no images to validate on, expected images/val with masks/val"),
        (("{folder}", "train", ["sky", "sea"]), "classes of .* are sky, sea, sand, the model's sky, sea"),
        (("{folder}", "train", None, 1), "ignore_index is 1, which is the class 'sea'"),
    ],
)
def test_unusable_folders(folder, arguments, message):
    source, *others = arguments
    with pytest.raises(DataError, match=message):
        open_masks(source.format(folder=folder), *others)


def test_class_names(folder):
    (folder / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no class names, write them into .*classes\.txt"):
        open_masks(str(folder), "train")
    assert open_masks(str(folder), "train", ["a", "b", "c"]).classes == ["a", "b", "c"]


def test_no_masks_folder(folder):
    write_image(folder / "images" / "val" / "a.jpg")
    with pytest.raises(DataError, match=r"images/val has no masks, expected them in one of masks/val, "):
        open_masks(str(folder), "val")
    (folder / "masks" / "val").mkdir()
    (folder / "images" / "val" / "a.jpg").unlink()
    with pytest.raises(DataError, match="images/val holds no images"):
        open_masks(str(folder), "val")


def write_turned(path, orientation):
    """An image stored as 3x2 pixels, the left column bright, with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[:, 0] = 255
    Image.fromarray(pixels).save(path, exif=exif)


def test_photos_are_upright_if_their_masks_are(folder):
    write_turned(folder / "images" / "train" / "a.png", 6)
    write_mask(folder / "masks" / "train" / "a.png", LABELS.T.copy())
    image, labels = open_masks(str(folder), "train")[0]
    assert (image.size, labels.tolist()) == ((2, 3), LABELS.T.tolist())
    assert np.asarray(image)[:, :, 0].tolist() == [[255, 255], [0, 0], [0, 0]]


def test_photos_stay_as_they_are_stored_if_their_masks_are_of_that(folder):
    write_turned(folder / "images" / "train" / "a.png", 6)
    image, labels = open_masks(str(folder), "train")[0]
    assert (image.size, labels.tolist()) == ((3, 2), LABELS.tolist())
    assert np.asarray(image)[:, :, 0].tolist() == [[255, 0, 0]] * 2


def test_masks_have_an_orientation_too(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_turned(folder / "images" / "train" / "a.png", 6)
    Image.fromarray(LABELS).save(folder / "masks" / "train" / "a.png", exif=exif)
    image, labels = open_masks(str(folder), "train")[0]
    assert (image.size, labels.tolist()) == ((2, 3), np.rot90(LABELS, -1).tolist())


def test_orientations_that_sizes_do_not_show_are_told(folder):
    assert open_masks(str(folder), "train").warnings == []
    write_turned(folder / "images" / "train" / "a.png", 2)
    data = open_masks(str(folder), "train")
    (line,) = data.warnings
    assert "1 of 1 images that were looked at have an EXIF orientation" in line
    assert np.asarray(data[0][0])[:, :, 0].tolist() == [[0, 0, 255]] * 2


def test_files_of_the_system_are_no_pairs_and_other_images_are_told(folder):
    images, masks = folder / "images" / "train", folder / "masks" / "train"
    for path in (images / "@eaDir" / "b.jpg", masks / "__MACOSX" / "c.png"):
        write_image(path)
    (images / "Thumbs.db").write_bytes(b"")
    (images / "d.heic").write_bytes(b"")
    data = open_masks(str(folder), "train")
    assert [data.name(i) for i in range(len(data))] == [str(images / "a.png")]
    (line,) = data.warnings
    assert line.startswith(f"{images}: 1 file left out")
    assert f"first {images / 'd.heic'}" in line


def test_names_of_two_unicode_forms_are_one(folder):
    write_image(folder / "images" / "train" / "caf\u00e9.png")
    write_mask(folder / "masks" / "train" / "cafe\u0301.png")
    assert len(open_masks(str(folder), "train", ["sky", "sea", "sand"])) == 2


def test_a_list_of_classes_in_another_encoding_is_named(folder):
    (folder / "classes.txt").write_bytes(b"sky\nB\xe4ume\nsand\n")
    with pytest.raises(DataError, match=r"classes\.txt, line 2: 'B\u00e4ume' is not UTF-8"):
        open_masks(str(folder), "train")
