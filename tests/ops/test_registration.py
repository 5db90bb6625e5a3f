"""One description of every operator: what follows from the record of its arguments, and from its folder."""

import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from typing import Annotated, NamedTuple, get_type_hints

import pytest
import torch
from torch import Tensor

from v2m import ops
from v2m.ops import dispatch
from v2m.ops.arguments import arguments_of, check
from v2m.ops.kernels import cpu, pytorch
from v2m.ops.registration import OPERATORS
from v2m.ops.scan.interface import SCAN

FOLDERS = [module.name for module in pkgutil.iter_modules(ops.__path__) if module.ispkg]
SCHEMAS = {
    "selective_scan": "Tensor u, Tensor delta, Tensor A, Tensor? B, Tensor? C, Tensor? D, Tensor? gate, "
    "Tensor? delta_bias, bool delta_softplus, str axis, bool reverse, str? implementation",
    "directional_pass": "Tensor x, Tensor gate, Tensor conv_weight, Tensor conv_bias, Tensor proj_weight, "
    "Tensor delta_weight, Tensor delta_bias, Tensor A, Tensor D, str selects, str axis, bool reverse, "
    "str? implementation",
    "selective_scan_2d": "Tensor u, Tensor delta_row, Tensor delta_col, Tensor A_row, Tensor A_col, "
    "Tensor B_row, Tensor B_col, Tensor C_row, Tensor C_col, Tensor coupling_row, Tensor coupling_col, "
    "bool delta_softplus, bool reverse_row, bool reverse_col, int? sweeps, str? implementation",
}
"""Those of the first release: exported programs call operators by them."""
GRADIENTS = dict(selective_scan=7, directional_pass=9, selective_scan_2d=11)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_those_of_exported_programs(name):
    gradients = ", ".join(["Tensor"] * GRADIENTS[name])
    forward, backward = (getattr(torch.ops.v2m, part).default for part in (name, f"{name}_backward"))
    assert str(forward._schema) == f"v2m::{name}({SCHEMAS[name]}) -> Tensor"
    assert str(backward._schema) == f"v2m::{name}_backward(Tensor grad, {SCHEMAS[name]}) -> ({gradients})"


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_every_kernel_takes_the_record(operator):
    """PyTorch's are always there; a module that has one of two functions has both."""
    modules = [pytorch, cpu]
    if dispatch._has_triton():
        modules.append(import_module("v2m.ops.kernels.triton"))
    for module in modules:
        found = [getattr(module, f"{operator.kernels}_{part}", None) for part in ("forward", "backward")]
        if module is not pytorch and found == [None, None]:
            continue
        (record,), (grad, again) = (inspect.signature(function).parameters for function in found)
        forward, backward = map(get_type_hints, found)
        assert (forward[record], forward["return"]) == (operator.inputs, Tensor)
        assert (backward[grad], backward[again], backward["return"]) == (Tensor, *(operator.inputs,) * 2)


def test_pytorch_computes_what_an_implementation_lacks(monkeypatch):
    monkeypatch.setattr(dispatch, "fastest", lambda device: "cpu")
    monkeypatch.delattr(cpu, "scan_forward")
    device = torch.device("cpu")
    assert SCAN.kernels_for(device, None).forward is pytorch.scan_forward
    monkeypatch.setattr(dispatch, "library", lambda: None)
    with pytest.raises(ValueError, match=r"^selective_scan: implementation 'cpu' has no kernels for it$"):
        SCAN.kernels_for(device, "cpu")


class Record(NamedTuple):
    u: Annotated[Tensor, "B, H, W, D"]
    both: Annotated[Tensor, "D + N, K"]
    A: Annotated[Tensor, "D, N"]
    taps: Annotated[Tensor | None, "D, K"]
    kernel: Annotated[Tensor, "K"]
    times: int | None
    flag: bool
    own: Tensor | None = None


def test_arguments_follow_from_the_record():
    found = [(x.name, x.type, x.shape, dict(x.main.defines)) for x in arguments_of(Record)]
    assert found == [
        ("u", "Tensor", "B, H, W, D", dict(B=0, H=1, W=2, D=3)),
        ("both", "Tensor", "D + N, K", {}),
        ("A", "Tensor", "D, N", dict(N=1)),
        ("taps", "Tensor?", "D, K", {}),
        ("kernel", "Tensor", "K", dict(K=0)),
        ("times", "int?", "", {}),
        ("flag", "bool", "", {}),
    ]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("u", torch.ones(2, 3), "u has shape [2, 3], expected a non-empty map [B, H, W, D]"),
        ("u", torch.ones(2, 3, 0, 5), "u has shape [2, 3, 0, 5], expected a non-empty map [B, H, W, D]"),
        ("both", torch.ones(7, 3), "both has shape [7, 3], expected [7, 4] ([D + N, K]) with D = 5 as in u, "
         "N = 2 as in A, K = 4 as in kernel"),
        ("A", torch.ones(5), "A has shape [5], expected [D, N] with D = 5 as in u"),
        ("A", torch.ones(3, 2), "A has shape [3, 2], expected [5, 2] ([D, N]) with D = 5 as in u"),
        ("kernel", torch.ones(4, 1), "kernel has shape [4, 1], expected [K]"),
        ("flag", 1, "flag is 1, expected True or False"),
    ],
)  # fmt: skip
def test_errors_follow_from_the_record(name, value, message):
    right = Record(
        torch.ones(1, 2, 3, 5), torch.ones(7, 4), torch.ones(5, 2), None, torch.ones(4), None, True
    )
    check("op", arguments_of(Record), right[:-1])
    with pytest.raises((TypeError, ValueError)) as error:
        check("op", arguments_of(Record), right._replace(**{name: value})[:-1])
    assert str(error.value) == f"op: {message}"


class TwoShapes(NamedTuple):
    u: Annotated[Tensor, "B, D"]
    A: Annotated[Tensor, "D, N or D"]
    A_2: Annotated[Tensor, "D, N or D"]
    C: Annotated[Tensor | None, "B, N"]
    both: Annotated[Tensor | None, "D + N"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (([4, 5], [5, 2], [5, 2], None, None), None),
        (([4, 5], [5, 2], [5, 2], [4, 2], [7]), None),
        (([4, 5], [5], [5], [4, 3], None), None),
        (([4, 5], [5], [5], None, [8]), None),
        (([4, 5], [5], [5], [4, 0], [5]), None),
        (([4, 5], [5], [5], [4, 3], [7]), "both has shape [7], expected [8] ([D + N]) with D = 5 as in u, "
         "N = 3 as in C"),
        (([4, 5], [5], [5], None, [4]), "both has shape [4], expected [D + N] with D = 5 as in u"),
        (([4, 5], [5], [5], [3], None), "C has shape [3], expected [B, N] with B = 4 as in u"),
        (([4, 5], [5], [5], None, None), "A has shape [5] and neither C nor both is given, expected one of "
         "them, or A of shape [D, N]"),
        (([4, 5], [6], [6], [4, 3], None), "A has shape [6], expected [5] ([D]) with D = 5 as in u"),
        (([4, 5], [6, 2], [6, 2], None, None), "A has shape [6, 2], expected [5, 2] ([D, N]) with D = 5 as "
         "in u"),
        (([4, 5], [], [5], [4, 3], None), "A has shape [], expected [D, N] or [D] with D = 5 as in u"),
        (([4, 5], [5], [5, 3], [4, 3], None), "A_2 has shape [5, 3], expected [5] (as A)"),
        (([4, 5], [5, 3], [5], [4, 3], None), "A_2 has shape [5], expected [5, 3] (as A)"),
        (([4, 5], [5, 3], [5, 4], [4, 3], None), "A_2 has shape [5, 4], expected [5, 3] (as A)"),
    ],
)  # fmt: skip
def test_a_tensor_may_have_one_of_two_shapes(shapes, message):
    values = [None if shape is None else torch.ones(shape) for shape in shapes]
    if message is None:
        return check("op", arguments_of(TwoShapes), values)
    with pytest.raises(ValueError, match=r"^op: ") as error:
        check("op", arguments_of(TwoShapes), values)
    assert str(error.value) == f"op: {message}"


def test_a_record_has_its_tensors_first():
    class Late(NamedTuple):
        flag: bool
        u: Annotated[Tensor, "B, H, W, D"]

    with pytest.raises(TypeError, match=r"^Late: the tensor u comes after a setting$"):
        arguments_of(Late)


def test_a_record_has_types_that_schemas_know():
    class Odd(NamedTuple):
        u: Annotated[Tensor, "B, H, W, D"]
        names: list

    with pytest.raises(TypeError, match=r"^no operator takes an argument of type <class 'list'>$"):
        arguments_of(Odd)


def hidden(package, folders):
    """Folders of a package whose modules cannot be reached by name, for a function has the same name."""
    return [name for name in folders if not inspect.ismodule(getattr(import_module(package), name))]


def test_no_folder_has_the_name_of_its_function():
    for name in FOLDERS:
        for module in pkgutil.iter_modules(import_module(f"v2m.ops.{name}").__path__):
            if not module.name.startswith("triton"):
                import_module(f"v2m.ops.{name}.{module.name}")
    assert hidden("v2m.ops", FOLDERS) == []
    assert {"directional", "scan", "scan_2d"} <= set(FOLDERS)


def test_a_planted_folder_with_the_name_of_its_function_is_caught(tmp_path, monkeypatch):
    for name in ("fine", "same"):
        folder = tmp_path / "planted" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("from .interface import same\n")
        (folder / "interface.py").write_text("def same():\n    pass\n")
    (tmp_path / "planted" / "__init__.py").write_text("from . import fine\nfrom .same import same\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert hidden("planted", ["fine", "same"]) == ["same"]
    for name in [name for name in sys.modules if name.split(".")[0] == "planted"]:
        monkeypatch.delitem(sys.modules, name)


def test_modules_of_a_folder_are_reached_by_name():
    code = "import v2m.ops.directional.interface; v2m.ops.directional.interface.directional_pass"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert callable(ops.directional_pass)
