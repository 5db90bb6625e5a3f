import pickle

import pytest

from v2m.data.errors import DecompressionBombError, TransformError, UnreadableImageError


@pytest.mark.parametrize("kind", [UnreadableImageError, TransformError, DecompressionBombError])
def test_errors_are_one_harmless_line(kind):
    error = kind("a\nb\x1b", "n\to")
    assert str(error).startswith(r"a\nb\x1b: ")
    assert str(error).endswith(r"(n\to)")


@pytest.mark.parametrize("kind", [UnreadableImageError, TransformError, DecompressionBombError])
def test_errors_come_whole_out_of_worker_processes(kind):
    error = pickle.loads(pickle.dumps(kind("a.png", "cut off")))
    assert (type(error), error.name, error.reason) == (kind, "a.png", "cut off")
