"""Names as those of files, and as words for a shell."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.hostile import NAMES, assert_harmless
from v2m.system.names import LONGEST, safe_name, shell_word


@pytest.mark.parametrize(
    "name", ["cat", "Katze 1 (alt).tar", "\u732b", "a_b-c", "v1.0", "eval-b\u00e4ume", "10:30", "x" * LONGEST]
)
def test_usual_names_stay(name):
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name", [*NAMES.values(), "\u732b" * 100, ".hidden", "CON", "nul.png", "a.", "\ud800"]
)
def test_any_name_is_one_for_a_file(tmp_path, name):
    safe = safe_name(name)
    assert_harmless(safe)
    assert not {"/", "\\", "\n"} & {*safe}
    assert safe[0] not in ".- "
    assert safe[-1] not in ". "
    assert len(f".{safe}-123_labels.png.partial".encode()) < 255
    (tmp_path / f".{safe}-123_labels.png.partial").touch()


def test_no_two_names_become_one():
    odd = [*NAMES.values(), "a/b", "a\\b", "a\nb", "a\tb", "a_b", ".a", "-a", "_a", "x" * 9_999, "x" * 180]
    assert len({safe_name(name) for name in odd}) == len(odd)


def test_any_name_can_be_pasted_into_a_shell(tmp_path):
    shell = shutil.which("bash")
    if not shell:
        pytest.skip("no bash")
    names = [*NAMES.values(), "it's\n$HOME \\x41 !!", "\x1b0", "a\n"]
    command = " ".join(["printf", r"'%s\0'", *map(shell_word, names)])
    assert_harmless(command)
    assert "\n" not in command
    found = subprocess.run([shell, "-c", command], capture_output=True, check=True, cwd=tmp_path).stdout
    assert found.split(b"\0")[:-1] == [os.fsencode(name) for name in names]
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize("word", ["runs/a", "my run", "it's", "$HOME", "--x", ""])
def test_usual_words_are_quoted_as_ever(word):
    assert shell_word(word) == shlex.quote(word)
