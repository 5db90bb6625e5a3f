"""Habits that can be read from the source: what a name begins with, means, hides, and whether it is used."""

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import v2m

SOURCE, TESTS = Path(v2m.__file__).parent, Path(__file__).parents[1]

SHARED_NAMES = {"AugmentConfig", "ClassScores", "HeadConfig", "InputConfig", "LossConfig", "TrainTransform"}
SHARED_NAMES |= {"Predictions"}
"""Classes that every task, or the view of every task, has its own of under one name."""
READ_BY_OTHERS = {"default_cfgs"}
"""Constants that other packages ask a module for: timm, for the configurations of its models."""


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_imports(path, text):
    """Private names of other modules of this package that a file imports, or takes from a module."""
    found, modules = [], set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "v2m"):
            start = "." * node.level + (node.module or "")
            found += [
                f"{path} imports {start}.{alias.name}" for alias in node.names if is_private(alias.name)
            ]
            modules |= {alias.asname or alias.name for alias in node.names if alias.name.islower()}
        elif isinstance(node, ast.Import):
            modules |= {
                alias.asname for alias in node.names if alias.asname and alias.name.startswith("v2m.")
            }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            if owner in modules or owner.startswith("v2m."):
                found.append(f"{path} takes {owner}.{node.attr}")
    return found


def repeated_classes(files):
    """Public classes of one name in several modules: the name, and where."""
    places = defaultdict(list)
    for path, text in files.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not is_private(node.name):
                places[node.name].append(path)
    return {name: paths for name, paths in places.items() if len(paths) > 1}


def used_names(text):
    """How often names are read, imported or written out in a short text, as arguments of ``getattr`` are."""
    counts = Counter()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            counts[node.id] += 1
        elif isinstance(node, ast.Attribute):
            counts[node.attr] += 1
        elif isinstance(node, ast.alias):
            counts[node.name.rpartition(".")[2]] += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
            counts.update(re.findall(r"\w+", node.value))
    return counts


def constants(text):
    """Names that a module gives values to."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (part for target in targets for part in ast.walk(target))
            yield from (name.id for name in names if isinstance(name, ast.Name))


def unused_constants(files, readers):
    """Constants of the modules in ``files`` that neither these nor ``readers`` use."""
    used = sum(map(used_names, [*files.values(), *readers]), Counter())
    found = [(path, name) for path, text in files.items() for name in constants(text)]
    return [f"{path}: {name}" for path, name in found if not used[name] and not name.startswith("__")]


def hidden_folders(init, folders):
    """Folders beside an ``__init__.py`` that import by name what it gives away under the same name."""
    body = ast.parse(init).body
    given = {
        alias.asname or alias.name
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    given |= {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return given & set(folders)


def read(folder):
    return {
        str(p.relative_to(folder.parent)): p.read_text(encoding="utf-8") for p in sorted(folder.rglob("*.py"))
    }


@pytest.fixture(scope="module")
def sources():
    return read(SOURCE)


@pytest.fixture(scope="module")
def tests():
    return read(TESTS)


def test_no_module_imports_a_private_name_of_another(sources):
    assert [line for path, text in sources.items() for line in private_imports(path, text)] == []


def test_a_class_has_its_name_alone(sources):
    assert repeated_classes(sources).keys() - SHARED_NAMES == set()


def test_names_are_shared_by_tasks_alone(sources):
    """What tasks may share is not what other rooms may."""
    for name, paths in repeated_classes(sources).items():
        if name in SHARED_NAMES:
            assert all(re.match(r"v2m/tasks/\w+/|v2m/cli/|v2m/data/augment.py", path) for path in paths), name


def test_every_constant_is_used(sources, tests):
    found = unused_constants(sources, tests.values())
    assert [line for line in found if line.rpartition(" ")[2] not in READ_BY_OTHERS] == []


def test_no_operator_hides_its_folder():
    folders = [path.name for path in (SOURCE / "ops").iterdir() if path.is_dir()]
    assert hidden_folders((SOURCE / "ops" / "__init__.py").read_text(encoding="utf-8"), folders) == set()


@pytest.mark.parametrize(
    "text",
    [
        "from v2m.pictures.figure import _save",
        "from .figure import BLUE, _save",
        "def f():\n    from . import _save",
        "from v2m.pictures import figure\nfigure._save()",
        "import v2m.pictures.figure as figure\nfigure._save()",
        "import v2m.pictures\nv2m.pictures.figure._save()",
    ],
)
def test_planted_private_import_is_caught(text):
    assert len(private_imports("file.py", text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "from v2m import __version__",
        "from collections import _tuplegetter",
        "import os\nos._exit(0)",
        "def _save(): ...\n_save()\nclass A:\n    def f(self):\n        return self._x",
        "from v2m.models import V2M\nV2M._registry",
    ],
)
def test_names_that_may_be_imported(text):
    assert private_imports("file.py", text) == []


def test_planted_second_class_is_caught():
    files = {
        "a.py": "class Scan: ...\nclass _State: ...",
        "b.py": "class _State: ...",
        "c.py": "class Scan: ...",
    }
    assert repeated_classes(files) == {"Scan": ["a.py", "c.py"]}


@pytest.mark.parametrize(
    "text", ["LIMIT = 3", "LIMIT: int = 3", "LOW, LIMIT = RANGE = 1, 3\nLOW, RANGE", "LIMIT = 3\nLIMIT = 4"]
)
def test_planted_unused_constant_is_caught(text):
    found = unused_constants({"a.py": text}, [f"x = 'LIMIT is a word of {'a long text ' * 9}'"])
    assert {line.rpartition(" ")[2] for line in found} == {"LIMIT"}


@pytest.mark.parametrize("reader", ["from a import LIMIT", "import a\na.LIMIT", "patch('a.LIMIT', 2)"])
def test_a_constant_may_be_used_elsewhere(reader):
    assert unused_constants({"a.py": "LIMIT = 3\n__all__ = []"}, [reader]) == []


def test_planted_hidden_folder_is_caught():
    init = "from v2m.ops.scan import scan\nfrom v2m.ops.dispatch import use as two\ndef three(): ..."
    assert hidden_folders(init, ["scan", "two", "three", "kernels"]) == {"scan", "two", "three"}
