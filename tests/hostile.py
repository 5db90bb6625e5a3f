"""Names that strangers may give to classes, files and folders, and what must never be printed of them."""

import re

NAMES = {
    "escape": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "one byte escape": "\x9b31mred",
    "line": "cat\nv2m: error: all is lost",
    "return": "cat\rdog",
    "tab": "cat\tdog",
    "backspace": "cat\b\b\bdog\x7f",
    "separators": "cat\u2028dog\u2029\x85\x0b\x0c\x1c",
    "right to left": "\u202egpj.tac\u202c\u2066\u200f",
    "invisible": "c\u200ba\u200dt\ufeff\u00ad\U000e0041",
    "surrogate": "caf\udce9",
    "markup": "[red]cat[/red] [link=file:///etc/passwd]dog[/link] [/]",
    "codes": ":smile: {0} {x!r} %s %(x)s",
    "math": r"$\frac{1}{$ \$x$ $x_1$",
    "dollar": "$5",
    "backslash": "\\cat\\ndog\\",
    "markdown": "a|b `c` <img src=x onerror=alert(1)> # *d* [e](http://f)",
    "formula": "=cmd|' /C calc'!A0",
    "underscore": "_background_",
    "dashes": "--output",
    "dots": "..",
    "slashes": "../../etc/passwd",
    "shell": "$(touch pwned) `id` ; ' \" &",
    "emoji": "\U0001f469\u200d\U0001f52c\U0001f3fd cat",
    "chinese": "\u732b",
    "hebrew": "\u05d7\u05ea\u05d5\u05dc",
    "long": "x" * 10_000,
    "blanks": "   ",
    "empty": "",
}
"""Names by what is odd about them."""

FOLDERS = {
    key: name.replace("/", "|")[:60]
    for key, name in NAMES.items()
    if name and not name.startswith(".") and key != "surrogate"
}
"""Those that name folders, as far as these can have them, and are text."""

HARMFUL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""Control characters but the line break, and marks that are not seen or turn the direction of writing."""


def assert_harmless(printed):
    """Check that bytes or text that were printed do nothing but show letters, in lines."""
    text = printed if isinstance(printed, str) else printed.decode("utf-8", "surrogateescape")
    found = HARMFUL.search(text)
    assert not found, f"{found[0]!r} in {text[max(0, found.start() - 60) : found.end() + 60]!r}"
    assert not any(line.startswith("v2m: error: all is lost") for line in text.splitlines())
