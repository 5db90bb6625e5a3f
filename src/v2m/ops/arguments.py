"""What an operator takes: read from its record of arguments, and checked when it is called.

A record is a ``NamedTuple``, tensors first. A tensor's annotation tells its shape, sizes by their letters,
``Annotated[Tensor | None, "B, H, W, N"]``. The first tensor is the map, which all others have to fit.
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SCHEMAS = {Tensor: "Tensor", bool: "bool", str: "str", int: "int"}


@dataclass(frozen=True)
class Argument:
    """One argument of an operator.

    Attributes:
        name: Its name in the record.
        type: Its type in the schema of the registered operator, such as ``Tensor?`` or ``bool``.
        shape: Of a tensor, such as ``B, H, W, D``; a size may be a sum, as in ``R + N, D``.
        choices: What a string may be.
        defines: Where the sizes stand that no tensor before this one has, by their letters.
        sizes: The terms of each size of ``shape``.
        is_tensor: Whether it is a tensor, or may be one.
        is_optional: Whether it may be None.
    """

    name: str
    type: str
    shape: str = ""
    choices: tuple[str, ...] = ()
    defines: Mapping[str, int] = field(default_factory=dict)
    # Kept, not computed when asked for: every call of an operator reads them.
    sizes: tuple[tuple[str, ...], ...] = field(init=False)
    is_tensor: bool = field(init=False)
    is_optional: bool = field(init=False)

    def __post_init__(self) -> None:
        sizes = self.shape.split(", ") if self.shape else []
        object.__setattr__(self, "sizes", tuple(tuple(size.split(" + ")) for size in sizes))
        object.__setattr__(self, "is_tensor", self.type.startswith("Tensor"))
        object.__setattr__(self, "is_optional", self.type.endswith("?"))


def arguments_of(record: Any) -> tuple[Argument, ...]:
    """The arguments of the operator that a record describes: its fields without a default.

    Raises:
        TypeError: a field has a type that no operator takes, or a tensor comes after a setting.
    """
    hints = get_type_hints(record, include_extras=True)
    found: list[Argument] = []
    known: set[str] = set()
    for name in record._fields:
        if name in record._field_defaults:
            continue
        kind, shape = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name], "")
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        argument = Argument(name, "str" if choices else _schema(kind), shape, choices)
        if argument.is_tensor and found and not found[-1].is_tensor:
            raise TypeError(f"{record.__name__}: the tensor {name} comes after a setting")
        # A sum of two sizes, or a tensor that may be left out, defines none.
        if argument.type == "Tensor" and all(len(terms) == 1 for terms in argument.sizes):
            new = {letter: i for i, (letter,) in enumerate(argument.sizes) if letter not in known}
            argument = replace(argument, defines=new)
            known |= new.keys()
        found.append(argument)
    return tuple(found)


def _schema(kind: Any) -> str:
    is_optional = get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)
    plain = next(part for part in get_args(kind) if part is not type(None)) if is_optional else kind
    if plain not in SCHEMAS:
        raise TypeError(f"no operator takes an argument of type {kind}")
    return SCHEMAS[plain] + "?" * is_optional


def check(
    operator: str,
    arguments: Sequence[Argument],
    values: Sequence[object],
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Refuse what kernels cannot read, and shapes that do not fit.

    Integers are left to the operator, which knows their range.

    Args:
        operator: Its name in messages.
        arguments: What it takes.
        values: What it got, in the same order.
        aliases: Names that messages use in place of others.

    Raises:
        TypeError: a tensor is none, or has no dense floating point numbers; a flag is neither True nor False.
        ValueError: a tensor has a wrong shape, or is on another device than the map; a string is no choice.
    """
    tensors: list[tuple[Argument, Any]] = []
    for argument, value in zip(arguments, values, strict=True):
        if argument.is_tensor:
            if value is not None or not argument.is_optional:
                tensors.append((argument, value))
        elif argument.choices:
            if not isinstance(value, str) or value not in argument.choices:
                choices = " or ".join(map(repr, argument.choices))
                raise ValueError(f"{operator}: {argument.name} is {described(value)}, expected {choices}")
        elif argument.type == "bool" and not isinstance(value, bool):
            raise TypeError(f"{operator}: {argument.name} is {described(value)}, expected True or False")
    names = aliases or {}
    _check_kinds(operator, tensors, names)
    _check_shapes(operator, tensors, names)


def _check_kinds(operator: str, tensors: Sequence[tuple[Argument, Any]], aliases: Mapping[str, str]) -> None:
    first, like = tensors[0]
    may_have_names = not torch.compiler.is_compiling()
    for argument, value in tensors:
        name = aliases.get(argument.name, argument.name)
        if not isinstance(value, Tensor):
            raise TypeError(f"{operator}: {name} is {described(value)}, expected a tensor")
        if value.is_nested or value.layout != torch.strided:
            layout = "nested" if value.is_nested else f"of layout {value.layout}"
            raise TypeError(f"{operator}: {name} is {layout}, expected a dense tensor")
        names = getattr(value, "names", ()) if may_have_names else ()  # newer PyTorch has none
        if any(names):
            raise TypeError(f"{operator}: {name} has named dimensions {names}, expected none")
        if argument is first and value.dtype not in FLOATING:
            raise TypeError(f"{operator}: {name} has dtype {value.dtype}, expected one of {FLOATING}")
        if not value.is_floating_point():
            raise TypeError(f"{operator}: {name} has dtype {value.dtype}, expected floating point")
        if value.device != like.device:
            raise ValueError(
                f"{operator}: {name} is on {value.device}, expected {like.device} as {first.name}"
            )


def _check_shapes(
    operator: str, tensors: Sequence[tuple[Argument, Tensor]], aliases: Mapping[str, str]
) -> None:
    # First the tensors that define sizes: others, which may come before them, are compared with that.
    first = tensors[0][0]
    sizes: dict[str, int] = {}
    sources: dict[str, str] = {}
    for argument, value in tensors:
        if not argument.defines:
            continue
        shape = value.shape
        if len(shape) != len(argument.sizes) or (argument is first and 0 in shape[1:]):
            known = _origins(argument, sizes, sources)
            expected = f"[{argument.shape}] with {known}" if known else f"[{argument.shape}]"
            if argument is first:
                expected = f"a non-empty map [{argument.shape}]"
            raise ValueError(f"{operator}: {argument.name} has shape {list(shape)}, expected {expected}")
        for letter, i in argument.defines.items():
            sizes[letter], sources[letter] = shape[i], argument.name

    shapes: dict[str, tuple[int, ...]] = {}  # few shapes, many tensors
    for argument, value in tensors:
        expected_shape = shapes.get(argument.shape)
        if expected_shape is None:
            expected_shape = tuple(
                [sizes[t[0]] if len(t) == 1 else sum([sizes[letter] for letter in t]) for t in argument.sizes]
            )
            shapes[argument.shape] = expected_shape
        if value.shape != expected_shape:
            name = aliases.get(argument.name, argument.name)
            known = _origins(argument, sizes, sources)
            meaning = f"([{argument.shape}]) with {known}" if known else f"([{argument.shape}])"
            if argument.shape == first.shape:
                meaning = f"(as {first.name})"
            raise ValueError(
                f"{operator}: {name} has shape {list(value.shape)}, expected {list(expected_shape)} {meaning}"
            )


def _origins(argument: Argument, sizes: Mapping[str, int], sources: Mapping[str, str]) -> str:
    """Where the sizes of an argument are from: ``D = 3 as in u, N = 2 as in A``."""
    letters = [letter for terms in argument.sizes for letter in terms]
    others = [letter for letter in letters if sources.get(letter, argument.name) != argument.name]
    return ", ".join(f"{letter} = {sizes[letter]} as in {sources[letter]}" for letter in others)


def described(value: object) -> str:
    """A value for a message of one line: its type where it is long."""
    text = repr(value)
    return text if len(text) <= 60 and text.isprintable() else f"of type {type(value).__name__}"
