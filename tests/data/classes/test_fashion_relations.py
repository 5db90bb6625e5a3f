import numpy as np
import pytest

from tests.data.classes.test_named import fashion_archives  # noqa: F401 - a fixture
from v2m.data import DATASETS, open_dataset
from v2m.data.classes import named
from v2m.data.classes.fashion_relations import BAG, GARMENT, RELATIONS, SNEAKER, build_relations

GRAY = np.array([20, 40, 60, 80, 100, 120, 140, 160, 180, 200], np.uint8)


@pytest.fixture(scope="module")
def flat():
    """400 scenes of garments that are squares of one gray for each class."""
    labels = np.arange(40) % 10
    images = np.broadcast_to(GRAY[labels, None, None], (40, 28, 28))
    return build_relations(images, labels, count=400, seed=3)


def corner(scene, label):
    """Top and left of the garment of this class, which must be whole."""
    rows, columns = (scene == GRAY[label]).nonzero()
    assert len(rows) == GARMENT**2
    assert rows.max() - rows.min() == columns.max() - columns.min() == GARMENT - 1
    return rows.min(), columns.min()


def test_the_label_is_where_the_sneaker_is_seen_from_the_bag(flat):
    for scene, label in zip(*flat, strict=True):
        (top, left), (bag_top, bag_left) = corner(scene, SNEAKER), corner(scene, BAG)
        assert abs(top - bag_top) >= 5
        assert abs(left - bag_left) >= 5
        vertical, horizontal = RELATIONS[label].split()
        assert (vertical, horizontal) == (
            "below" if top > bag_top else "above",
            "right" if left > bag_left else "left",
        )


def test_relations_are_balanced_and_spread_over_the_scene(flat):
    scenes, labels = flat
    assert np.bincount(labels).tolist() == [100] * 4
    for label in range(4):
        tops, lefts = zip(*(corner(scene, SNEAKER) for scene in scenes[labels == label]), strict=True)
        assert len(set(tops)) > 15
        assert len(set(lefts)) > 15


def test_every_scene_holds_two_other_garments(flat):
    for scene in flat[0]:
        others = (scene > 0) & (scene != GRAY[SNEAKER]) & (scene != GRAY[BAG])
        assert 2 * (GARMENT // 2) ** 2 <= others.sum() <= 2 * GARMENT**2


def test_scenes_are_the_same_each_time_and_others_for_another_seed():
    labels = np.arange(40) % 10
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    first, again, other = (build_relations(images, labels, 12, seed)[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any((1, 2)).all()


def test_scenes_come_by_name_from_the_images_of_their_split(fashion_archives, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", fashion_archives[0])
    halved = fashion_archives[1].reshape(20, GARMENT, 2, GARMENT, 2).mean((2, 4)).round()
    windows = (40 - GARMENT + 1) ** 2
    for split, count, images in (("train", 20_000, 20), ("val", 4_000, 10)):
        scenes = open_dataset("fashion-relations", split, tmp_path)
        assert (len(scenes), scenes.classes) == (count, list(RELATIONS))
        assert np.bincount(scenes.targets).tolist() == [count // 4] * 4
        image, label = scenes[5]
        assert (image.mode, image.size, label) == ("L", (40, 40), scenes.targets[5])
        views = np.lib.stride_tricks.sliding_window_view(np.asarray(image), (GARMENT, GARMENT))
        views = views.reshape(windows, -1)
        found = {i for i in range(20) if (views == halved[i].ravel()).all(1).any()}
        assert {i % 10 for i in found} >= {SNEAKER, BAG}
        assert max(found) < images


def test_what_a_model_is_told_of_the_scenes():
    info = DATASETS["fashion-relations"]
    assert (info.img_size, info.in_chans, info.hflip, info.crop_scale) == ((40, 40), 1, 0.0, (0.9, 1.0))
