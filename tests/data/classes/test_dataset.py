import numpy as np
import pytest

from v2m.data.classes.dataset import ArrayImages, place_labels, read_class_names
from v2m.system.errors import DataError


@pytest.fixture
def data():
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2)
    return ArrayImages("numbers", images, np.array([1, 0, 1]), ["odd", "even"])


def test_images_have_names_and_labels(data):
    assert (len(data), data.name(2), data.targets) == (3, "numbers image 2", [1, 0, 1])
    image, label = data[2]
    assert (np.asarray(image).tolist(), label) == ([[8, 9], [10, 11]], 1)
    data.transform = np.asarray
    assert data[2][0].sum() == 38


def test_labels_move_to_another_list_of_classes(data):
    data.relabel(["even", "none", "odd"])
    assert (data.classes, data.targets) == (["even", "none", "odd"], [0, 2, 0])
    assert data.empty_classes() == ["none"]
    with pytest.raises(DataError, match="data: numbers has classes that are not known: even, none"):
        data.relabel(["odd"])


@pytest.mark.parametrize(
    ("labels", "names", "classes", "targets"),
    [
        ([2, 0, 2], None, ["0", "1", "2"], [2, 0, 2]),
        (["cat", "ant"], None, ["ant", "cat"], [1, 0]),
        (["cat", 7], None, ["7", "cat"], [1, 0]),
        (["cat", 0], ["dog", "cat"], ["dog", "cat"], [1, 0]),
    ],
)
def test_labels_are_indices_or_names(labels, names, classes, targets):
    assert place_labels(labels, names, str) == (classes, targets)


@pytest.mark.parametrize("label", [2, -1, "bee"])
def test_labels_of_no_class_are_named(label):
    with pytest.raises(DataError, match=f"data: row 1 has label {label!r}, expected one of 2 classes"):
        place_labels([0, label], ["ant", "cat"], "row {}".format)


def test_classes_are_listed_one_a_line(tmp_path):
    assert read_class_names(tmp_path) is None
    (tmp_path / "labels.txt").write_text("great white shark, Ünit\ncat \n\n", encoding="utf-8")
    assert read_class_names(tmp_path) == ["great white shark, Ünit", "cat"]
    (tmp_path / "classes.txt").write_text("dog\n")
    assert read_class_names(tmp_path) == ["dog"]
    (tmp_path / "classes.txt").write_text("caf\u00e9\ntea\ncafe\u0301\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"classes\.txt, line 3 has caf\u00e9 twice, as line 1 has it"):
        read_class_names(tmp_path)


def test_labels_of_two_unicode_forms_are_one():
    assert place_labels(["caf\u00e9", "cafe\u0301"], None, str) == (["caf\u00e9"], [0, 0])
    assert place_labels(["caf\u00e9"], ["tea", "cafe\u0301"], str)[1] == [1]
