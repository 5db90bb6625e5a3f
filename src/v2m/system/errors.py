"""What can be wrong with data, and the names that say where."""

import unicodedata
from collections.abc import Sequence

LONGEST = 300
"""Letters of each of a few names."""


class DataError(ValueError):
    """Data that cannot be used; the message says which and why, in one harmless line."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shown(message))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where there is none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def short(error: Exception) -> str:
    """A whole error as a part of one line: its first 300 letters, or its type where it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def shown(name: str) -> str:
    """A name as a harmless part of one line.

    Bytes that are no text are shown by their numbers. So are line breaks, the escapes that steer a terminal,
    and marks that nobody sees or that turn the direction of writing.
    """
    text = name.encode("utf-8", "backslashreplace").decode()  # names of files may be any bytes
    return "".join(letter if _is_harmless(letter) else _escaped(letter) for letter in text)


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def is_text(name: str) -> bool:
    """Whether a name is text: those of files may be any bytes."""
    return name.encode("utf-8", "ignore").decode() == name


def same_name(name: str) -> str:
    """A name in Unicode's form NFC: systems write one letter with an accent as one character or as two."""
    return unicodedata.normalize("NFC", name)


def few(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are if there are more."""
    return ", ".join(_cut(shown(name)) for name in names[:5]) + (
        f", ... ({len(names)} in all)" if len(names) > 5 else ""
    )


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
