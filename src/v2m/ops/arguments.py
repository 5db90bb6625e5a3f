"""What an operator takes: read from its record of arguments, and checked when it is called.

A record is a ``NamedTuple``, tensors first. A tensor's annotation tells its shape, sizes by their letters,
``Annotated[Tensor | None, "B, H, W, N"]``. It may have one of several shapes, the largest first, as in
``Annotated[Tensor, "D, N or D"]``; tensors of one annotation have the same one. The first tensor is the map,
which all others have to fit.
"""

import types
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SCHEMAS = {Tensor: "Tensor", bool: "bool", str: "str", int: "int"}


@dataclass(frozen=True)
class Form:
    """A shape that a tensor may have.

    Attributes:
        text: Such as ``B, H, W, D``; a size may be a sum, as in ``R + N, D``.
        sizes: The terms of each size.
        defines: Where the sizes stand that no tensor before this one has, by their letters.
        lacks: Letters that the first shape of the same tensor defines, and this one does not have.
    """

    text: str
    sizes: tuple[tuple[str, ...], ...]
    defines: Mapping[str, int] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argument:
    """One argument of an operator.

    Attributes:
        name: Its name in the record.
        type: Its type in the schema of the registered operator, such as ``Tensor?`` or ``bool``.
        shape: Of a tensor, such as ``B, H, W, D``; or its shapes, as in ``D, N or D``.
        choices: What a string may be.
        known: Letters that tensors before this one define; None for a tensor that defines none.
        forms: The shapes, by their number of dimensions.
        main: The first of them.
        letters: Those that its sizes are made of.
        is_tensor: Whether it is a tensor, or may be one.
        is_optional: Whether it may be None.
    """

    name: str
    type: str
    shape: str = ""
    choices: tuple[str, ...] = ()
    known: Set[str] | None = None
    # Kept, not computed when asked for: every call of an operator reads them.
    forms: Mapping[int, Form] = field(init=False)
    main: Form = field(init=False)
    letters: Set[str] = field(init=False)
    is_tensor: bool = field(init=False)
    is_optional: bool = field(init=False)

    def __post_init__(self) -> None:
        forms = [_form(text, self.known) for text in self.shape.split(" or ")]
        lacking = [tuple(forms[0].defines.keys() - form.defines.keys()) for form in forms]
        forms = [replace(form, lacks=lacks) for form, lacks in zip(forms, lacking, strict=True)]
        object.__setattr__(self, "forms", {len(form.sizes): form for form in forms})
        object.__setattr__(self, "main", forms[0])
        object.__setattr__(self, "letters", {letter for terms in forms[0].sizes for letter in terms})
        object.__setattr__(self, "is_tensor", self.type.startswith("Tensor"))
        object.__setattr__(self, "is_optional", self.type.endswith("?"))


def _form(text: str, known: Set[str] | None) -> Form:
    sizes = tuple(tuple(size.split(" + ")) for size in text.split(", ")) if text else ()
    # A sum of two sizes defines none.
    if known is None or any(len(terms) > 1 for terms in sizes):
        return Form(text, sizes)
    return Form(text, sizes, {letter: i for i, (letter,) in enumerate(sizes) if letter not in known})


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
        schema = "str" if choices else _schema(kind)
        # A tensor that may be left out defines none.
        argument = Argument(name, schema, shape, choices, frozenset(known) if schema == "Tensor" else None)
        if argument.is_tensor and found and not found[-1].is_tensor:
            raise TypeError(f"{record.__name__}: the tensor {name} comes after a setting")
        known |= argument.main.defines.keys()
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
    _check_shapes(operator, arguments, tensors, names)


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
    operator: str,
    arguments: Sequence[Argument],
    tensors: Sequence[tuple[Argument, Tensor]],
    aliases: Mapping[str, str],
) -> None:
    # First the tensors that define sizes: others, which may come before them, are compared with that.
    first = tensors[0][0]
    sizes: dict[str, int] = {}
    sources: dict[str, str] = {}
    lacking: tuple[str, ...] = ()
    for argument, value in tensors:
        if not argument.main.defines:
            continue
        shape = value.shape
        form = argument.forms.get(len(shape))
        if form is None or (argument is first and 0 in shape[1:]):
            expected = f"a non-empty map [{argument.shape}]" if argument is first else None
            raise _wrong_shape(operator, argument, shape, expected, sizes, sources)
        for letter, i in form.defines.items():
            sizes[letter], sources[letter] = shape[i], argument.name
        if form.lacks:
            lacking = form.lacks
    for letter in lacking:
        _find(letter, operator, arguments, tensors, sizes, sources)

    shapes: dict[str, tuple[int, ...]] = {}  # few shapes, many tensors
    for argument, value in tensors:
        expected_shape = shapes.get(argument.shape)
        if expected_shape is None:
            form = argument.forms.get(len(value.shape), argument.main)
            expected_shape = tuple(
                [sizes[t[0]] if len(t) == 1 else sum([sizes[letter] for letter in t]) for t in form.sizes]
            )
            shapes[argument.shape] = expected_shape
        if value.shape != expected_shape:
            name = aliases.get(argument.name, argument.name)
            form = argument.forms.get(len(expected_shape), argument.main)
            known = _origins(argument, form, sizes, sources)
            meaning = f"([{form.text}]) with {known}" if known else f"([{form.text}])"
            like = next(other for other, _ in tensors if other.shape == argument.shape)
            if like is first or (like is not argument and len(argument.forms) > 1):
                meaning = f"(as {like.name})"
            raise ValueError(
                f"{operator}: {name} has shape {list(value.shape)}, expected {list(expected_shape)} {meaning}"
            )


def _find(
    letter: str,
    operator: str,
    arguments: Sequence[Argument],
    tensors: Sequence[tuple[Argument, Tensor]],
    sizes: dict[str, int],
    sources: dict[str, str],
) -> None:
    """Take a size from the first tensor that has it, where the one that defines it came without."""
    for argument, value in tensors:
        if letter not in argument.letters:
            continue
        form = argument.forms.get(len(value.shape))
        if form is None:
            raise _wrong_shape(operator, argument, value.shape, None, sizes, sources)
        for terms, size in zip(form.sizes, value.shape, strict=True):
            if letter not in terms:
                continue
            if len(terms) > 1:
                size -= sum([sizes[term] for term in terms if term != letter])
            if size < 0:
                raise _wrong_shape(operator, argument, value.shape, None, sizes, sources)
            sizes[letter], sources[letter] = size, argument.name
            return
    owner, *rest = [argument for argument in arguments if letter in argument.letters]
    others = " nor ".join(argument.name for argument in rest if argument.shape != owner.shape)
    shape = next(list(value.shape) for argument, value in tensors if argument is owner)
    raise ValueError(
        f"{operator}: {owner.name} has shape {shape} and neither {others} is "
        f"given, expected one of them, or {owner.name} of shape [{owner.main.text}]"
    )


def _wrong_shape(
    operator: str,
    argument: Argument,
    shape: Sequence[int],
    expected: str | None,
    sizes: Mapping[str, int],
    sources: Mapping[str, str],
) -> ValueError:
    if expected is None:
        known = _origins(argument, argument.main, sizes, sources)
        expected = " or ".join(f"[{form.text}]" for form in argument.forms.values())
        expected = f"{expected} with {known}" if known else expected
    return ValueError(f"{operator}: {argument.name} has shape {list(shape)}, expected {expected}")


def _origins(argument: Argument, form: Form, sizes: Mapping[str, int], sources: Mapping[str, str]) -> str:
    """Where the sizes of an argument are from: ``D = 3 as in u, N = 2 as in A``."""
    letters = [letter for terms in form.sizes for letter in terms]
    others = [letter for letter in letters if sources.get(letter, argument.name) != argument.name]
    return ", ".join(f"{letter} = {sizes[letter]} as in {sources[letter]}" for letter in others)


def described(value: object) -> str:
    """A value for a message of one line: its type where it is long."""
    text = repr(value)
    return text if len(text) <= 60 and text.isprintable() else f"of type {type(value).__name__}"
