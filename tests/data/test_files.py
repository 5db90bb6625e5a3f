"""Text files that people write."""

import pytest

from v2m.data import DataError
from v2m.data.files import read_names

LATIN = "Sky\nB\u00e4ume\nRoad\n".encode("latin-1")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"\xef\xbb\xbfSky\r\nRoad \r\n\r\n", ["Sky", "Road"]),
        ("B\u00e4ume\nRoad".encode(), ["B\u00e4ume", "Road"]),
        ("Ba\u0308ume\n".encode(), ["B\u00e4ume"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
    ],
)
def test_names_are_one_a_line(tmp_path, content, names):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    assert read_names(path) == names


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", " has no lines, expected names"),
        (b" \n\n", " has no lines, expected names"),
        (b"Sky\n \nRoad\n", ", line 2 is empty, expected a name"),
        (LATIN, ", line 2: 'B\u00e4ume' is not UTF-8, save the file anew"),
        ("Sky\nRoad\n".encode("utf-16"), " is in UTF-16, expected UTF-8: save it anew"),
        (
            "Sky\nRoad\n".encode("utf-16-be"),
            ", line 1: '\\x00S\\x00k\\x00y\\x00' is not UTF-8, save the file anew",
        ),
    ],
)
def test_what_is_no_list_of_names_is_told_with_its_line(tmp_path, content, words):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_names(path)
    assert str(error.value) == f"{path}{words}"
