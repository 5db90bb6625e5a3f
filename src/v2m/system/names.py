"""Names in other places: as names of files, in pictures, and as words for a shell."""

import hashlib
import os
import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches

from v2m.system.errors import shown

LONGEST = 180
"""Most bytes of a name, so that a number, an ending and what is added while writing fit in a file's 255."""
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that are none of files on Windows."""


def safe_name(name: str) -> str:
    """A name as that of one file or folder, which any system takes.

    Usual names stay as they are. Others lose what separates folders or is not printed, leading dots and
    dashes, and their end where they are long. They end with a hash of the name instead, so that no two
    become one.
    """
    # Separators and what steers a terminal first, then what a system drops or hides at either end.
    letters = "".join("_" if letter in "/\\" or shown(letter) != letter else letter for letter in name)
    safe = re.sub(r"^[.\-\s]+|[.\s]+$|^$", "_", letters)
    # Bytes and not letters, since systems limit those; half a letter at the end goes.
    safe = safe.encode()[:LONGEST].decode(errors="ignore")
    if safe == name and not DEVICES.fullmatch(safe):
        return name
    return f"{safe}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def figure_text(text: str) -> str:
    """A line as matplotlib draws it letter by letter: dollars would be formulas."""
    return shown(text).replace("$", r"\$")


def shortened(text: str, most: int) -> str:
    """A text of so many letters at most, whose middle is left out where it is longer."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[len(text) - half :]}"


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The known names that a mistyped one may stand for, the likeliest first; of none that is alike, none."""
    return get_close_matches(name, list(known), n=most)


def shell_word(word: str) -> str:
    r"""A word for the command line of a shell, which can be printed and pasted whatever is in it.

    Words that ``shlex.quote`` leaves printable are quoted by it, others are of the form ``$'a\012b'``, which
    bash, zsh, ksh and POSIX of 2024 know.
    """
    if shown(word) == word:
        return shlex.quote(word)
    return f"$'{''.join(map(_in_octal, word))}'"


def _in_octal(letter: str) -> str:
    if shown(letter) == letter and letter not in "\\'":
        return letter
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(letter))
