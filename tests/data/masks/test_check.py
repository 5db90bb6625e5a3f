import numpy as np
import pytest
from PIL import Image

from v2m.data.check.annotated import find_annotated_problems
from v2m.data.check.facts import inspect_all
from v2m.data.masks.check import find_mask_checks


def check(root, workers=0, **options):
    """All splits, and the problems as (split, name in its folder, kind, detail)."""
    checks = find_mask_checks(str(root), **options)
    splits = [c.finish(list(inspect_all(c.look, len(c), workers))) for c in checks]
    found = [
        (p.split, p.image and p.image.removeprefix(f"{root}/"), p.kind, p.detail.replace(f"{root}/", ""))
        for p in find_annotated_problems(splits, 8)
    ]
    return splits, found


@pytest.fixture
def folder(tmp_path):
    """Two images of 10x20 pixels in each split: half of the pixels are grass, a quarter sky, or ignored."""
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 10), np.uint8)
    mask[10:15], mask[15:] = 1, 255
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for name in ("a", "b"):
            pixels = rng.integers(0, 256, (20, 10, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / split / f"{name}.png")
            Image.fromarray(mask).save(tmp_path / "masks" / split / f"{name}.png")
    (tmp_path / "classes.txt").write_text("grass\nsky\n")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_are_counted(folder, workers):
    splits, problems = check(folder, workers)
    assert [split.name for split in splits] == ["train", "val"]
    assert splits[0].counts == dict(grass=200, sky=100)
    assert splits[0].numbers == {"labelled pixels": 300, "ignored pixels": 100, "pixels of no class": 0}
    assert problems == []


def test_masks_that_do_not_fit_are_named(folder):
    masks = folder / "masks" / "train"
    Image.new("L", (20, 10)).save(masks / "a.png")
    Image.new("L", (10, 20), 7).save(masks / "b.png")
    Image.new("RGB", (10, 20)).save(folder / "masks" / "val" / "a.png")
    (folder / "masks" / "val" / "b.png").rename(folder / "masks" / "val" / "c.png")
    splits, problems = check(folder)
    colours = "mask masks/val/a.png: mask has RGB pixels, expected one number each: gray, or a palette"
    assert problems == [
        ("val", "images/val/a.png", "unreadable", colours),
        ("val", "images/val/b.png", "missing mask", "no mask of its name"),
        ("train", "images/train/a.png", "size", "is 10x20 pixels, its mask 20x10"),
        ("train", "images/train/b.png", "value", "7 in 100.0% of the pixels of masks/train/b.png"),
        ("val", "masks/val/c.png", "left-over mask", "no image"),
        ("train", None, "empty class", "sky"),
        ("val", None, "empty class", "grass"),
        ("val", None, "empty class", "sky"),
    ]
    assert splits[0].numbers["pixels of no class"] == 200


def test_masks_of_0_and_255_have_an_empty_class(folder):
    for mask in folder.glob("masks/*/*.png"):
        Image.fromarray(np.repeat(np.uint8([[0], [255]]), 10, 0).repeat(10, 1)).save(mask)
    splits, problems = check(folder)
    assert splits[0].numbers["ignored pixels"] == 200
    assert [(split, kind, detail) for split, _, kind, detail in problems] == [
        ("train", "empty class", "sky"),
        ("val", "empty class", "sky"),
    ]


def test_without_a_list_of_classes_values_are_counted(folder):
    (folder / "classes.txt").unlink()
    splits, problems = check(folder)
    assert splits[0].counts == {"value 0": 200, "value 1": 100}
    assert splits[0].numbers == {"labelled pixels": 300, "ignored pixels": 100, "pixels of no class": 0}
    assert problems == []


def test_masks_of_very_many_values_are_told_and_kept_small(folder):
    noise = np.arange(2**12, dtype=np.uint16).reshape(64, 64)
    for split in ("train", "val"):
        Image.new("RGB", (64, 64), "red" if split == "train" else "blue").save(
            folder / "images" / split / "a.png"
        )
        Image.fromarray(noise).save(folder / "masks" / split / "a.png")
    splits, problems = check(folder)
    assert [look.values.keys() for look in splits[0].looks] == [{0, 1, 255, 2}, {0, 1, 255}]
    assert splits[0].numbers["pixels of no class"] == 2**12 - 3
    assert splits[0].counts == dict(grass=101, sky=51)
    (_, image, kind, detail) = problems[0]
    assert (image, kind) == ("images/train/a.png", "value")
    assert detail == "2, 3, 4, 5, 6, ... in 99.9% of the pixels of masks/train/a.png"
    (folder / "classes.txt").unlink()
    splits, problems = check(folder)
    assert splits[0].looks[0].values == {}
    assert problems[0][2:] == ("value", "0, 1, 2, 3, 4, ... in 100.0% of the pixels of masks/train/a.png")


def test_masks_of_another_size_are_not_decoded(folder, monkeypatch):
    Image.new("L", (300, 400)).save(folder / "masks" / "train" / "a.png")
    monkeypatch.setattr("v2m.data.masks.check.read_mask", None)
    (check, _) = find_mask_checks(str(folder))
    assert check.look(0).problems == [("size", "is 10x20 pixels, its mask 300x400")]


def test_files_of_one_name_are_told(folder):
    for kind, name in (("images", "a.jpg"), ("masks", "a.PNG")):
        Image.new("L", (10, 20), 1).save(folder / kind / "train" / name)
    assert check(folder)[1] == [
        ("train", "images/train/a.png", "same name", "as images/train/a.jpg"),
        ("train", "masks/train/a.png", "same name", "as masks/train/a.PNG"),
    ]


def test_ade20k_counts_from_1(folder):
    rows = ["Idx\tName", *(f"{i}\tclass {i}, other" for i in range(1, 151))]
    (folder / "classes.txt").unlink()
    (folder / "objectInfo150.txt").write_text("\n".join(rows))
    for kind in ("images", "masks"):
        (folder / kind / "train").rename(folder / kind / "training")
    splits, _ = check(folder)
    assert [split.name for split in splits] == ["training", "val"]
    assert (splits[0].counts["class 1"], splits[0].numbers["ignored pixels"]) == (100, 300)


def test_values_have_the_labels_that_training_gives_them(folder):
    for mask in folder.glob("masks/*/*.png"):
        Image.fromarray(np.repeat(np.uint8([[0], [255], [9], [7]]), 10, 1).repeat(5, 0)).save(mask)
    splits, problems = check(folder, label_map={255: 1, 9: 254}, ignore_index=254)
    assert splits[0].counts == dict(grass=100, sky=100)
    assert splits[0].numbers == {"labelled pixels": 200, "ignored pixels": 100, "pixels of no class": 100}
    assert problems[0][2:] == ("value", "7 in 25.0% of the pixels of masks/train/a.png")
    labels = find_mask_checks(str(folder), 254, {255: 1, 9: 254})[0].labels(0, (10, 20))
    assert np.unique(labels).tolist() == [-1, 0, 1, 7]


def test_folders_per_split_and_others(folder, image_folder):
    assert find_mask_checks(str(image_folder)) == []
    other = folder / "by split"
    for kind in ("images", "masks"):
        (other / "train").mkdir(parents=True, exist_ok=True)
        (folder / kind / "train").rename(other / "train" / kind)
    (split,), _ = check(other)
    assert split.counts == {"value 0": 200, "value 1": 100}
