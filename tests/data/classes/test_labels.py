import pytest

from v2m.data.classes.labels import index_labels
from v2m.system.errors import DataError


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
    assert index_labels(labels, names, str) == (classes, targets)


@pytest.mark.parametrize("label", [2, -1, "bee"])
def test_labels_of_no_class_are_named(label):
    with pytest.raises(DataError, match=f"data: row 1 has label {label!r}, expected one of 2 classes"):
        index_labels([0, label], ["ant", "cat"], "row {}".format)


def test_labels_of_two_unicode_forms_are_one():
    assert index_labels(["caf\u00e9", "cafe\u0301"], None, str) == (["caf\u00e9"], [0, 0])
    assert index_labels(["caf\u00e9"], ["tea", "cafe\u0301"], str)[1] == [1]
