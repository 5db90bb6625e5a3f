"""Names in messages."""

import pytest

from v2m.system.errors import DataError, shown


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        ("日本 é.png", "日本 é.png"),
        ("a\u00a0b", "a\u00a0b"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u2028b\u0085c", r"a\u2028b\x85c"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("a\u200bb\u2066c\ufeff", r"a\u200bb\u2066c\ufeff"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_a_name_is_shown_without_what_steers_a_terminal(name, harmless):
    assert shown(name) == harmless


def test_an_error_is_one_harmless_line():
    assert str(DataError("a\nb\x1b: no")) == r"a\nb\x1b: no"
