"""Imports go one way; the ranks of the rooms are below."""

import ast
from pathlib import Path

import pytest

import v2m

SOURCE = Path(v2m.__file__).parent
TASKS = {folder.name for folder in (SOURCE / "tasks").iterdir() if folder.is_dir()}
RANKS = dict(system=0, ops=1, pictures=1, layers=2, models=3, data=3, tasks=4, engine=5)
RANKS |= dict(features=6, explain=6, benchmark=6, recipes=7, studies=8, cli=9)
RANKS |= dict(__init__=3, __main__=10)  # v2m/__init__.py gives away the models
INNER = dict(check=(), classes=("check",), coco=("check",), masks=("check",), scenes=("classes",))
"""Inner rooms of the data, and which others each may import; what lies above them is for all."""

KERNELS = ("v2m", "ops", "kernels")


def is_triton(module):
    """Whether a name is of Triton, or of our kernels in it: files whose names start with ``triton``."""
    return module[0] == "triton" or (module[:3] == KERNELS and "".join(module[3:4]).startswith("triton"))


def imported(node, package):
    """Dotted names that an import statement of ``package`` may load, as tuples."""
    if isinstance(node, ast.Import):
        return [tuple(alias.name.split(".")) for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    start = package[: len(package) + 1 - node.level] if node.level else ()
    start += tuple(node.module.split(".")) if node.module else ()
    return [(*start, alias.name) for alias in node.names]


def run_on_import(node):
    """Every node below, leaving out the insides of functions."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from run_on_import(child)


def inner_room(name):
    """The inner room of a module of the data; the room itself, which gives away what is in them, is none."""
    return name[2] if name[1:2] == ("data",) and "".join(name[2:3]) in INNER else ""


def place(name, tasks):
    """Room and task of a module of this package; names that are no room belong to ``v2m/__init__.py``."""
    room, part = (*name[1:], "", "")[:2]
    return room if room in RANKS else "__init__", part if room == "tasks" and part in tasks else ""


def violations(path, text, tasks=TASKS):
    """What breaks the rule in a file; ``path`` counts from the folder of the package."""
    own, tree, found = ("v2m", *path.with_suffix("").parts), ast.parse(text), []
    loaded = [name for node in run_on_import(tree) for name in imported(node, own[:-1])]
    if not is_triton(own) and any(map(is_triton, loaded)):
        found.append(f"{path} imports triton when it is imported")
    if path == Path("__init__.py"):
        return found
    if own[1] not in RANKS:
        return [*found, f"{path} is in no known room"]
    room, task = place(own, tasks)
    for name in (name for node in ast.walk(tree) for name in imported(node, own[:-1]) if name[0] == "v2m"):
        other_room, other_task = place(name, tasks)
        if room == other_room:
            inner, other_inner = inner_room(own), inner_room(name)
            is_fine = not task or other_task in ("", task)
            if other_inner not in ("", inner):
                is_fine = own[1:] == ("data", "__init__") or other_inner in INNER.get(inner, ())
        else:
            is_fine = RANKS[room] > RANKS[other_room]
        if not is_fine:
            found.append(f"{path} imports {'.'.join(name)}")
    return found


@pytest.mark.parametrize("path", sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")), ids=str)
def test_source_keeps_the_rule(path):
    assert violations(path, (SOURCE / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("ops/scan/interface.py", "import v2m.layers"),
        ("ops/scan/interface.py", "import torch, v2m.layers.mixers as mixer"),
        ("ops/scan/interface.py", "from ...layers import V2MMixer"),
        ("ops/scan/__init__.py", "from ...layers import V2MMixer"),
        ("ops/__init__.py", "from .. import layers"),
        ("ops/__init__.py", "from v2m import selective_scan"),
        ("layers/mixers/v2m.py", "import v2m"),
        ("layers/mixers/v2m.py", "def f():\n    from v2m.models import V2M"),
        ("layers/mixers/v2m.py", "if True:\n    from v2m import models"),
        ("models/plain.py", "from v2m.data.classes.open import open_dataset"),
        ("data/classes/open.py", "from ...models import V2M"),
        ("data/classes/open.py", "from v2m import create_model"),
        ("data/coco/check.py", "from v2m.data.masks.open import open_masks"),
        ("data/masks/open.py", "from v2m.data.classes.labels import index_labels"),
        ("data/masks/open.py", "from ..coco import paths"),
        ("data/classes/open.py", "def f():\n    from v2m.data import scenes"),
        ("data/check/facts.py", "from v2m.data.classes.dataset import LabelledImages"),
        ("data/layouts.py", "from v2m.data.classes.folders import FolderImages"),
        ("data/__init__.py", "from v2m.models import V2M"),
        ("tasks/seg/head.py", "from v2m.engine import train"),
        ("tasks/seg/head.py", "from v2m.tasks.det.head import Head"),
        ("tasks/seg/head.py", "from v2m.tasks import det"),
        ("tasks/seg/head.py", "from ..det import head"),
        ("engine/train.py", "import v2m.features.probe"),
        ("features/probe.py", "from v2m import explain"),
        ("system/files.py", "from v2m.ops import selective_scan"),
        ("pictures/counts.py", "from v2m.data.images import read_image"),
        ("recipes/digits.py", "from v2m.studies import run"),
        ("export/onnx.py", "import math"),
        ("recipes/digits.py", "from v2m.cli import main"),
        ("utils.py", ""),
        ("misc/tools.py", "import math"),
        ("ops/scan/triton.py", "import triton"),
        ("ops/scan/triton.py", "try:\n    import triton.language as tl\nexcept ImportError:\n    pass"),
        ("ops/scan/triton.py", "class Kernels:\n    from triton import jit"),
        ("__init__.py", "import triton"),
        ("ops/dispatch.py", "from v2m.ops.kernels import triton"),
        ("ops/kernels/cpu.py", "from v2m.ops.kernels.triton_2d import scan_2d_forward"),
    ],
)
def test_planted_violation_is_caught(path, text):
    assert len(violations(Path(path), text, tasks={"seg", "det"})) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("__init__.py", "from v2m.models import MODELS\nfrom v2m import ops"),
        ("__main__.py", "from v2m.cli import main"),
        ("cli/main.py", "from v2m import __version__, engine\nfrom ..recipes import digits"),
        ("engine/train.py", "from . import run\nfrom ..tasks.seg import head\nimport v2m"),
        ("data/__init__.py", "from v2m.data.classes.open import open_dataset"),
        ("data/scenes/files.py", "from v2m.data.classes.open import open_dataset\nfrom . import scene"),
        ("data/masks/check.py", "from v2m.data.check import facts\nfrom v2m.data.masks.open import is_mask"),
        ("data/coco/open.py", "from v2m.data.splits import Split\nfrom v2m.data.images import read_image"),
        ("tasks/__init__.py", "from v2m.tasks import det, seg"),
        ("tasks/seg/head.py", "from .loss import f\nfrom ..common import g\nfrom v2m.tasks.seg import data"),
        ("tasks/seg/head.py", "from v2m.models import V2M\nfrom v2m.data import open_dataset\nimport v2m"),
        ("models/plain.py", "from v2m.models.config import V2MConfig\nfrom v2m.layers import V2MMixer"),
        (
            "layers/mixers/v2m.py",
            "from v2m.ops import selective_scan\nimport v2m.ops.scan\nimport v2mystery.cli",
        ),
        ("ops/scan/triton.py", "def kernels():\n    import triton"),
        ("ops/kernels/triton_2d.py", "import triton\nfrom v2m.ops.kernels.triton_parts import kernel"),
    ],
)
def test_what_the_rule_allows(path, text):
    assert violations(Path(path), text, tasks={"seg", "det"}) == []
