"""What documents name exists: files, modules, and the documents that they link to."""

import importlib
import re

import pytest

from tests.helpers import REPOSITORY

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")),
]
ROOTS = [REPOSITORY, REPOSITORY / "src" / "v2m"]

SOURCE_PATH = re.compile(r"src/v2m/[\w/.<>*-]*[\w/>*]")
SHORT_PATH = re.compile(r"`((?:[\w*-]+/)+(?:[\w*-]+\.\w+)?)`")
"""Files and folders as the description of the code names them, from the package or the repository."""
ROOM = re.compile(r"^ {6,}(\w+/)", re.MULTILINE)
"""Folders in the tree of rooms."""
DOTTED = re.compile(r"(?<!/)\bv2m(?:\.[A-Za-z_]\w*)+\b")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)(?:#[^)]*)?\)")


def has_path(path, roots):
    """Whether there is such a file; ``<name>`` stands for any."""
    pattern = re.sub(r"<\w+>", "*", path).rstrip("/")
    return any(any(root.glob(pattern)) for root in roots)


def has_name(dotted):
    """Whether a dotted name can be imported, or is in a module that can."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


def missing(document, text):
    """What a document names that is not there."""
    paths = {path for path in SOURCE_PATH.findall(text) if not has_path(path, [REPOSITORY])}
    if document == "docs/architecture.md":
        paths |= {path for path in SHORT_PATH.findall(text) if not has_path(path, ROOTS)}
        paths |= {path for path in ROOM.findall(text) if not has_path(f"**/{path}", ROOTS[1:])}
    names = {name for name in DOTTED.findall(text) if not has_name(name)}
    folder = (REPOSITORY / document).parent
    links = {link for link in LINK.findall(text) if not (folder / link).exists()}
    return paths | names | links


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_documents_name_exists(document):
    found = missing(document, (REPOSITORY / document).read_text(encoding="utf-8"))
    assert found == set()


def test_every_room_is_in_the_tree():
    rooms = {path.parent.name for path in (REPOSITORY / "src" / "v2m").glob("*/__init__.py")}
    tree = ROOM.findall((REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert rooms <= {room.rstrip("/") for room in tree}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("see `src/v2m/analysis/plots.py`.", "src/v2m/analysis/plots.py"),
        ("[code](../src/v2m/models/nothing.py)", "src/v2m/models/nothing.py"),
        ("Make `src/v2m/<room>/nothing.py`", "src/v2m/<room>/nothing.py"),
        ("a folder `src/v2m/analysis/`", "src/v2m/analysis/"),
        ("`v2m.analysis.plots` draws", "v2m.analysis.plots"),
        ("`v2m.models.V3M`", "v2m.models.V3M"),
        ("[data](nothing.md#formats)", "nothing.md"),
        ("`models/nothing.py` renames", "models/nothing.py"),
        ("files `ops/nothing/triton*.py`", "ops/nothing/triton*.py"),
        ("    src/v2m/\n      analysis/    pictures", "analysis/"),
    ],
)
def test_planted_name_of_nothing_is_caught(text, name):
    assert name in missing("docs/architecture.md", text)


@pytest.mark.parametrize(
    "text",
    [
        "`src/v2m/<room>/config.py`, `src/v2m/models/`, `src/v2m/models`. src/v2m/models/config.py.",
        "`v2m.models.V2M.forward`, `v2m.ops`, v2m.selective_scan, `v2m::selective_scan`",
        "[data](data.md#formats), [site](https://example.org/a.md), [above](#here), [read](../README.md)",
        "`models/config.py`, `tests/package/`, `ops/kernels/triton*.py`, `N / R`, `runs/RUN`",
    ],
)
def test_what_may_be_named(text):
    assert missing("docs/architecture.md", text) == set()
