"""Write the scores and speeds of documents: ``python -m tests.documents.write``, or ``make docs``.

In a document ``<!-- result: NAME ARGUMENTS -->`` is before what is written, ``<!-- end -->`` after it: a
table on lines of its own, or a figure within a line. ``NAME`` is one of ``tables.py`` or ``figures.py``.
"""

import re

from tests.documents.blocks import PAGES, read_page
from tests.documents.figures import FIGURES
from tests.documents.tables import TABLES
from tests.helpers import REPOSITORY

MARK = re.compile(r"(<!-- result: (\w+)([^>]*) -->)(.*?)(<!-- end -->)", re.DOTALL)


def written(text):
    """The text with what is in the result files today between all marks.

    Raises:
        ValueError: a mark has no end, or a name that is none.
    """
    if text.count("<!-- result: ") != len(MARK.findall(text)):
        raise ValueError("a mark '<!-- result: ... -->' is not closed by '<!-- end -->', or has other spaces")
    return MARK.sub(_between, text)


def _between(match):
    begin, name, arguments, _, end = match.groups()
    if name in TABLES:
        return f"{begin}\n\n{TABLES[name](*arguments.split())}\n\n{end}"
    if name in FIGURES:
        return f"{begin}{FIGURES[name](*arguments.split())}{end}"
    raise ValueError(f"{begin}: {name} is neither in TABLES nor in FIGURES")


def main():
    for page in PAGES:
        text = read_page(page)
        if (new := written(text)) != text:
            (REPOSITORY / page).write_text(new, encoding="utf-8")
            print(f"{page} is written anew")


if __name__ == "__main__":
    main()
