import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data.formats import as_parquet, as_tars, as_webdataset
from v2m.data import find_splits
from v2m.data.check.problems import write_problems
from v2m.data.classes.check import CheckedSplit, find_problems, inspect_images, summarise


def check(source, tmp_path, workers=0, tiny=8):
    """All splits with their facts, and the problems as (split, name in its folder, kind, detail)."""
    splits = []
    for name, opener in find_splits(str(source), tmp_path / "cache").items():
        data = opener()
        splits.append(CheckedSplit(name, data, list(inspect_images(data, workers))))
    root = f"{source}/"
    problems = [
        (p.split, p.image and p.image.removeprefix(root), p.kind, p.detail.replace(root, ""))
        for p in find_problems(splits, tiny)
    ]
    return splits, problems


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_wrong_with_good_images(image_folder, tmp_path, workers):
    splits, problems = check(image_folder, tmp_path, workers)
    assert problems == []
    assert [split.name for split in splits] == ["train", "val"]
    summary = summarise(splits[0])
    assert summary.counts == dict(blue=8, green=8, red=8)
    assert (summary.widths, summary.heights, summary.modes) == ((14, 14, 14), (10, 10, 10), {"colour": 24})


def test_every_format_is_checked_and_arrays_too(image_folder, tmp_path):
    shutil.copy(image_folder / "val" / "red" / "0.png", image_folder / "train" / "red" / "8.png")
    for make in (as_tars, as_webdataset, as_parquet):
        make(image_folder, tmp_path / make.__name__)
        problems = check(tmp_path / make.__name__, tmp_path)[1]
        assert [(split, kind) for split, _, kind, _ in problems] == [
            ("validation" if make is as_parquet else "val", "leak")
        ]
    splits, _ = check("digits", tmp_path)
    assert summarise(splits[1]).modes == {"gray": 360}


def test_images_that_cannot_be_used_are_named(image_folder, tmp_path, monkeypatch):
    train = image_folder / "train"
    (train / "red" / "0.png").write_bytes((train / "red" / "0.png").read_bytes()[:60])
    Image.new("RGB", (7, 30), "red").save(train / "red" / "1.png")
    Image.new("L", (100, 100), 7).save(train / "red" / "2.png")
    Image.new("L", (100, 60), 8).save(train / "red" / "3.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4999)
    splits, problems = check(image_folder, tmp_path)
    assert [(name, kind) for _, name, kind, _ in problems] == [
        ("train/red/0.png", "unreadable"),
        ("train/red/2.png", "bomb"),
        ("train/red/3.png", "huge"),
        ("train/red/1.png", "tiny"),
    ]
    assert problems[0][3]
    assert problems[1][3].startswith("Image size (10000 pixels) exceeds")
    assert problems[3][3] == "7x30 pixels"
    assert summarise(splits[0]).widths == (7, 14, 100)
    assert summarise(splits[0]).counts["red"] == 8


def test_the_same_pixels_are_found_in_another_file_format_or_mode(image_folder, tmp_path):
    train, val = image_folder / "train", image_folder / "val"
    with Image.open(train / "blue" / "0.png") as image:
        image.save(train / "blue" / "again.png", compress_level=0)
        image.convert("RGBA").save(val / "red" / "leak.webp", lossless=True)
        image.save(val / "blue" / "leak.bmp")
    with Image.open(train / "red" / "0.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(val / "red" / "turned.png")
    twin = "train/blue/0.png"
    assert check(image_folder, tmp_path)[1] == [
        ("val", "val/blue/leak.bmp", "leak", f"same as {twin}"),
        ("val", "val/red/leak.webp", "leak", f"same as {twin}"),
        ("val", "val/red/leak.webp", "conflict", f"red here, blue as {twin}"),
        ("train", "train/blue/again.png", "duplicate", f"same as {twin}"),
    ]


def test_images_whose_contents_are_transparency_are_named(image_folder, tmp_path):
    red = image_folder / "train" / "red"
    black, glyph = Image.new("L", (20, 20)), np.zeros((20, 20), np.uint8)
    glyph[5:15, 8:12] = 255
    Image.merge("LA", [black, Image.fromarray(glyph)]).save(red / "glyph.png")
    palette = Image.fromarray(glyph // 255).convert("P")
    palette.putpalette([9, 9, 9, 9, 9, 9])
    palette.save(red / "palette.png", transparency=0)
    Image.merge("LA", [Image.fromarray(glyph), Image.fromarray(glyph)]).save(red / "seen.png")
    Image.merge("LA", [black, Image.new("L", (20, 20), 255)]).save(red / "opaque.png")
    assert check(image_folder, tmp_path)[1] == [
        ("train", f"train/red/{name}.png", "hidden", "one colour, without its transparency")
        for name in ("glyph", "palette")
    ]


def test_flat_images_of_other_shapes_or_transparency_are_not_the_same(image_folder, tmp_path):
    red = image_folder / "train" / "red"
    Image.new("L", (10, 20)).save(red / "a.png")
    Image.new("L", (20, 10)).save(red / "b.png")
    for name, left in (("c.png", 0), ("d.png", 200)):
        alpha = np.full((10, 10), 255, np.uint8)
        alpha[:, :5] = left
        Image.merge("LA", [Image.new("L", (10, 10)), Image.fromarray(alpha)]).save(red / name)
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(red / "e.png")
    Image.new("P", (9, 8)).save(red / "f.gif.png", transparency=0)
    splits, problems = check(image_folder, tmp_path)
    assert [name for _, name, kind, _ in problems if kind != "hidden"] == []
    assert summarise(splits[0]).modes == {"colour": 24, "alpha": 3, "gray": 2, "16 bit": 1}


def test_all_trouble_with_classes_is_told_at_once(image_folder, tmp_path):
    for image in (image_folder / "train" / "green").iterdir():
        image.unlink()
    shutil.rmtree(image_folder / "val" / "blue")
    (image_folder / "val" / "purple").mkdir()
    shutil.copytree(image_folder / "val", image_folder / "test")
    (image_folder / "test" / "red").rename(image_folder / "test" / "pink")
    problems = [problem for problem in check(image_folder, tmp_path)[1] if problem[1] is None]
    assert problems == [
        ("val", None, "unknown class", "purple"),
        ("test", None, "unknown class", "pink"),
        ("test", None, "unknown class", "purple"),
        ("train", None, "empty class", "green"),
        ("val", None, "empty class", "purple"),
        ("val", None, "empty class", "blue"),
        ("test", None, "empty class", "purple"),
        ("test", None, "empty class", "blue"),
        ("test", None, "empty class", "red"),
    ]


def test_problems_are_written_one_a_line(image_folder, tmp_path):
    (image_folder / "val" / "red" / "ünusual.png").write_bytes(b"")
    splits, _ = check(image_folder, tmp_path)
    write_problems(find_problems(splits, 8), tmp_path / "problems.jsonl")
    (line,) = (tmp_path / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    assert "ünusual" in line
    row = json.loads(line)
    assert (row["split"], row["kind"]) == ("val", "unreadable")
    assert row["image"] == str(image_folder / "val" / "red" / "ünusual.png")
    assert row["detail"]


def test_photos_are_looked_at_upright(image_folder, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(image_folder / "train" / "red" / "0.png") as image:
        turned = image.transpose(Image.Transpose.ROTATE_90)  # as it would be stored
    turned.save(image_folder / "val" / "red" / "leak.png", exif=exif)
    splits, problems = check(image_folder, tmp_path)
    assert [problem[1:3] for problem in problems] == [("val/red/leak.png", "leak")]
    assert summarise(splits[1]).widths == (14, 14, 14)


def test_ranges_of_gray_are_told_and_mixed_ones_are_problems(image_folder, tmp_path):
    red = image_folder / "train" / "red"
    ramp = np.arange(100, dtype=np.uint16).reshape(10, 10)
    for i, most in enumerate((3900, 4000, 65535, 200)):
        ramp[0, 0] = most
        Image.fromarray(ramp).save(red / f"deep{i}.png")
    Image.fromarray(ramp.astype(np.float32) / 200).save(red / "float.tiff")
    bad = ramp.astype(np.float32)
    bad[0, 0] = np.nan
    Image.fromarray(bad).save(red / "nan.tiff")
    splits, problems = check(image_folder, tmp_path)
    assert [problem[1:] for problem in problems] == [
        ("train/red/nan.tiff", "unreadable", "floating point pixels hold NaN or infinity"),
        ("train/red/deep2.png", "range", "16 bit, most 12 bit"),
        ("train/red/deep3.png", "range", "8 bit, most 12 bit"),
        ("train/red/float.tiff", "range", "float 0..1, most 12 bit"),
    ]
    assert summarise(splits[0]).modes["12 bit"] == 2
