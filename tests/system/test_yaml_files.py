import math
import os

import pytest

from v2m.system.errors import DataError
from v2m.system.yaml_files import YAML_BYTES, NoYamlError, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: 1, b: [1.5, 1e-3, .5, 1_000], c: null, d: true, e: text}", None),
        ("a: &x [1, 2]\nb: *x", dict(a=[1, 2], b=[1, 2])),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", dict(a=dict(b=1), c=dict(b=1, d=2))),
        ("[2024-01-01, =, '3', 1e5, -.inf, !!str 4]", ["2024-01-01", "=", "3", 1e5, -math.inf, "4"]),
        ("", None),
    ],
)
def test_plain_data_is_read(text, value):
    expected = value if value or not text else dict(a=1, b=[1.5, 1e-3, 0.5, 1000], c=None, d=True, e="text")
    assert parse_yaml(text) == expected


def multiplied(item):
    lines = ["a0: &a0 {x: 1, y: [2, 3]}"]
    lines += [f"a{i}: &a{i} {item.format(', '.join([f'*a{i - 1}'] * 10))}" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (multiplied("[{}]"), "too many values"),
        (multiplied("{{<<: [{}]}}"), "too many values"),
        (multiplied("[{}]").replace("{x: 1, y: [2, 3]}", "x" * 10**6), "too many values"),
        ("&a [*a]", "refers to what it is in"),
        ("a: &a {b: {<<: *a}}", "refers to what it is in"),
        ("[" * 100_000, "nest"),
        ("a: " + "[" * 40 + "]" * 40, "nested more than 32 levels"),
        ("- " * 40, "nested more than 32 levels"),
        ("[1]\n---\n[2]", "2 documents"),
        ("!!binary aa", "binary"),
        ("!!timestamp 2001-01-01", "timestamp"),
        ("!!set {a}", "set"),
        ("!!python/object/apply:os.mkdir [planted]", "python"),
        ("!!int x", "'x'"),
        ("!!bool x", "'x'"),
        ("a: 0x" + "f" * 5000, "5,002 digits"),
        ("a: " + "1:" * 5000 + "1", "digits"),
        ("{[1]: 2}", "unhashable"),
        ("\0", "#x0000"),
        ("*a", "undefined alias"),
        ("a: b: c", "line 1"),
    ],
)
def test_other_yaml_is_refused_in_one_line(text, reason):
    with pytest.raises(DataError, match=reason) as found:
        parse_yaml(text)
    assert len(str(found.value).splitlines()) == 1


def test_a_file_of_settings_is_read_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 3\n", encoding="utf-8-sig")
    assert read_yaml(file) == dict(epochs=3)


@pytest.mark.parametrize(
    ("text", "reason"), [(b"- 1", "no settings"), (b"1: 2", "the setting 1"), (b"\xff", "utf")]
)
def test_a_file_without_settings_is_refused(tmp_path, text, reason):
    file = tmp_path / "settings.yaml"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=reason):
        read_yaml(file)


def test_a_file_that_is_too_large_or_never_ends_is_refused(tmp_path):
    large = tmp_path / "large.yaml"
    with open(large, "wb") as file:
        file.truncate(YAML_BYTES + 1)
    with pytest.raises(DataError, match="bytes"):
        read_yaml(large)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.yaml")
        with pytest.raises(DataError, match="regular file"):
            read_yaml(tmp_path / "pipe.yaml")


def test_syntax_is_told_from_what_is_refused():
    with pytest.raises(NoYamlError):
        parse_yaml("[1")
    with pytest.raises(DataError) as found:
        parse_yaml("&a [*a]")
    assert not isinstance(found.value, NoYamlError)
