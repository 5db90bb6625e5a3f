import pytest

from v2m.data.class_names import read_class_names
from v2m.system.errors import DataError


def test_classes_are_listed_one_a_line(tmp_path):
    assert read_class_names(tmp_path) is None
    (tmp_path / "labels.txt").write_text("great white shark, Ünit\ncat \n\n", encoding="utf-8")
    assert read_class_names(tmp_path) == ["great white shark, Ünit", "cat"]
    (tmp_path / "classes.txt").write_text("dog\n")
    assert read_class_names(tmp_path) == ["dog"]
    (tmp_path / "classes.txt").write_text("caf\u00e9\ntea\ncafe\u0301\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"classes\.txt, line 3 has caf\u00e9 twice, as line 1 has it"):
        read_class_names(tmp_path)
