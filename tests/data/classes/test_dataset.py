import numpy as np
import pytest

from v2m.data.classes.dataset import ArrayImages
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
