import itertools
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as oracle

from v2m.data.classes.dataset import ArrayImages
from v2m.data.coco.open import open_coco
from v2m.data.scenes import files as scenes
from v2m.data.scenes.config import ScenesConfig
from v2m.data.scenes.files import build_scenes, run_lengths
from v2m.data.scenes.parts import LEVEL, cut_out, make_ground
from v2m.data.scenes.scene import make_scene
from v2m.system.errors import DataError

NAMES = ["Shirt", "Shoe", "Bag", "Hat"]
SMALL = ScenesConfig(train=6, val=3, sizes=((56, 64), (60, 52)))
SQUARE = 18


def garments(split="train"):
    """Gray squares: of the first two classes to train on, of the other two to validate on."""
    images = np.zeros((20, 28, 28), np.uint8)
    edge = (28 - SQUARE) // 2
    images[:, edge:-edge, edge:-edge] = np.random.default_rng(0).integers(100, 256, (20, SQUARE, SQUARE))
    targets = np.arange(20) % 2 + 2 * (split == "val")
    return ArrayImages(f"garments {split}", images, targets, NAMES)


@pytest.fixture(autouse=True)
def _no_download(monkeypatch):
    monkeypatch.setattr(scenes, "open_dataset", lambda source, split, data_dir: garments(split))


def build(output, config=SMALL):
    return list(build_scenes(config, output, output.parent))


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_files_are_what_the_scenes_are(tmp_path):
    made = build(tmp_path / "out")
    assert [scene.split for scene in made] == ["train"] * 6 + ["val"] * 3
    assert (tmp_path / "out" / "classes.txt").read_text() == "background\nShirt\nShoe\nBag\nHat\n"
    for split, first in (("train", 0), ("val", 6)):
        data = open_coco(str(tmp_path / "out"), split)
        assert (data.classes, data.category_ids, data.faults) == (NAMES, [1, 2, 3, 4], [])
        for index in range(len(data)):
            scene = made[first + index]
            image, objects = data[index]
            np.testing.assert_array_equal(np.asarray(image), scene.image)
            np.testing.assert_array_equal(objects.masks.numpy(), scene.masks)
            assert objects.labels.tolist() == scene.labels.tolist()
            assert objects.areas.tolist() == scene.masks.sum((1, 2)).tolist()
            assert not objects.crowd.any()
            with Image.open(data.name(index).replace("images", "masks")) as mask:
                assert mask.mode == "L"
                np.testing.assert_array_equal(np.asarray(mask), scene.semantic)


def test_boxes_and_classes_of_pixels_are_those_of_the_masks():
    for index in range(20):
        scene = make_scene(SMALL, garments(), "train", index)
        assert 1 <= len(scene.labels) <= 6
        assert scene.image.shape[:2] in SMALL.sizes
        assert scene.masks.sum(0).max() == 1
        for label, box, mask in zip(scene.labels, scene.boxes, scene.masks, strict=True):
            rows, columns = mask.nonzero()
            left, top = columns.min(), rows.min()
            assert box.tolist() == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
            assert (scene.semantic[mask] == label + 1).all()
        assert (scene.semantic[~scene.masks.any(0)] == 0).all()


def test_garments_are_of_their_split():
    labels = {
        split: {
            int(label) for i in range(20) for label in make_scene(SMALL, garments(split), split, i).labels
        }
        for split in ("train", "val")
    }
    assert labels == dict(train={0, 1}, val={2, 3})


def test_garments_overlap_but_none_is_hidden():
    config = ScenesConfig(sizes=((52, 52),), objects=(6, 6), scale=(1.0, 1.0), hidden=0.5)
    made = [make_scene(config, garments(), "train", index) for index in range(30)]
    seen = np.concatenate([scene.masks.sum((1, 2)) for scene in made])
    assert seen.max() == SQUARE**2
    assert SQUARE**2 / 2 <= seen.min() < 0.7 * SQUARE**2
    assert {len(scene.labels) for scene in made} <= {3, 4, 5, 6}


def test_the_same_settings_make_the_same_files(tmp_path):
    build(tmp_path / "first")
    build(tmp_path / "second")
    made = files(tmp_path / "first")
    assert len(made) == 2 * 9 + 2 + 2
    assert files(tmp_path / "second") == made
    build(tmp_path / "first")
    assert files(tmp_path / "first") == made
    build(tmp_path / "other", ScenesConfig(train=6, val=3, sizes=SMALL.sizes, seed=1))
    others = files(tmp_path / "other")
    assert all(others[name] != made[name] for name in made if name.startswith("images"))


def test_scenes_follow_from_their_number_alone():
    backwards = [make_scene(SMALL, garments(), "train", index) for index in reversed(range(5))]
    for index, scene in enumerate(reversed(backwards)):
        np.testing.assert_array_equal(scene.image, make_scene(SMALL, garments(), "train", index).image)
    other = make_scene(SMALL, garments(), "val", 0)
    assert not np.array_equal(other.image, backwards[-1].image)


@pytest.mark.parametrize("whole_before", [False, True])
def test_what_was_interrupted_is_not_taken_for_whole(tmp_path, whole_before):
    if whole_before:
        build(tmp_path / "out")
    making = build_scenes(SMALL, tmp_path / "out", tmp_path)
    list(itertools.islice(making, 8))
    making.close()
    assert not (tmp_path / "out" / "images").exists()
    assert not (tmp_path / "out" / "classes.txt").exists()
    with pytest.raises(DataError, match="has neither annotations/instances_train"):
        open_coco(str(tmp_path / "out"), "train")
    build(tmp_path / "out")
    build(tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"^output: .* is not empty, choose another folder$"):
        build(tmp_path)
    build(tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(FileExistsError, match=r"^output: .* holds scenes of other settings, choose another"):
        build(tmp_path / "out", ScenesConfig(train=7, val=3, sizes=SMALL.sizes))
    assert files(tmp_path / "out") == before
    with pytest.raises(OSError, match=r"^output: .*notes.txt cannot be made \(File exists\)$"):
        build(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["images", ".partial"])
def test_linked_folders_are_refused(tmp_path, name):
    build(tmp_path / "out")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if (tmp_path / "out" / name).is_dir():
        shutil.rmtree(tmp_path / "out" / name)
    (tmp_path / "out" / name).symlink_to(elsewhere)
    with pytest.raises(DataError, match=rf"/out/{name} is a link, and nothing is written through it; delete"):
        build(tmp_path / "out")
    assert not any(elsewhere.iterdir())


def test_settings_are_written_down(tmp_path):
    build(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "scenes.json").read_text())
    assert written == dict(
        train=6, val=3, seed=0, sizes=[[56, 64], [60, 52]], objects=[1, 6], scale=[0.8, 1.8], hidden=0.6
    )


def test_scenes_must_hold_the_largest_garment():
    with pytest.raises(ValueError, match=r"^sizes: 96x40, expected sides of at least 50 pixels$"):
        ScenesConfig(sizes=((96, 96), (96, 40)))


@pytest.mark.parametrize("corner", [0, 1])
def test_runs_are_those_of_coco(corner):
    mask = np.random.default_rng(0).random((7, 9)) < 0.3
    mask[0, 0] = corner
    runs = oracle.frPyObjects(dict(size=[7, 9], counts=run_lengths(mask)), 7, 9)
    assert runs == oracle.encode(np.asfortranarray(mask, np.uint8))


def test_garments_are_cut_out_without_specks_and_with_large_holes_only():
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 4:24] = 200
    whole = image >= LEVEL
    image[6:8, 6:8] = LEVEL - 1  # a small hole
    image[1, 1] = image[26, 20:24] = 255  # specks
    np.testing.assert_array_equal(cut_out(image), whole)
    image[10:18, 10:18] = 0
    whole[10:18, 10:18] = False
    np.testing.assert_array_equal(cut_out(image), whole)


def test_a_garment_as_thin_as_a_line_is_seen_at_any_size():
    images = np.zeros((1, 28, 28), np.uint8)
    images[0, 16] = 200
    line = ArrayImages("line", images, np.zeros(1, np.int64), NAMES)
    for index in range(40):
        assert make_scene(ScenesConfig(objects=(1, 1)), line, "train", index).masks.sum((1, 2)) >= 20


def test_grounds_are_textured():
    for seed in range(30):
        ground = make_ground(np.random.default_rng(seed), 40, 60)
        assert (ground.shape, ground.dtype) == ((40, 60, 3), np.float32)
        assert 3 < ground.std((0, 1)).mean() < 50
