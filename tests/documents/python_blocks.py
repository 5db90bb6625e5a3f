"""Run the Python of documents, and compare what it prints with what they say."""

import ast
import contextlib
import doctest
import importlib.util
import io
import re

NEIGHBOURS = {
    "transformers",
    "pytorch_grad_cam",
    "peft",
    "torchao",
    "captum",
    "datasets",
    "pyarrow",
    "onnxruntime",
}
"""Packages that blocks may need and that not every environment has."""


def missing_packages(source):
    """The neighbouring packages that a block imports and that are not installed."""
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    return sorted(name for name in imported & NEIGHBOURS if importlib.util.find_spec(name) is None)


def run_block(source, name, namespace):
    """Run a block in a namespace, a statement at a time.

    A comment behind a ``print``, or the lines of comments below it, say what it prints. As in doctest,
    ``...`` stands for anything, and spaces are all alike.

    Raises:
        AssertionError: something else is printed; the message has the place of the statement.
    """
    tree, lines = ast.parse(source, name), source.splitlines()
    for statement in tree.body:
        code = compile(ast.Module([statement], []), name, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        expected = _expected(statement, lines)
        if expected is not None:
            check_printed(expected, printed.getvalue(), f"{name}, line {statement.lineno} of the block")


def check_printed(expected, printed, place):
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    is_equal = doctest.OutputChecker().check_output(f"{expected.strip()}\n", f"{printed.strip()}\n", options)
    assert is_equal, f"{place} prints\n{printed.strip()}\nbut the document says\n{expected.strip()}"


def _expected(statement, lines):
    """What the comments of a ``print`` say that it prints; None of other statements and without comments."""
    call = getattr(statement, "value", None)
    if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "print":
        return None
    last = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()
    found = re.match(r"\s*#\s?(.*)", last)
    if found:
        return found[1]
    below = []
    for line in lines[statement.end_lineno :]:
        if not line.startswith("#"):
            break
        below.append(line[1:].removeprefix(" "))
    return "\n".join(below) if below else None


def run_page(blocks):
    """Run blocks one after another in one namespace; returns which could not be run, and why."""
    namespace, left_out = {"__name__": "__main__"}, []
    for block in blocks:
        if missing := missing_packages(block.text):
            left_out.append(f"{block} needs {', '.join(missing)}")
            continue
        try:
            run_block(block.text, str(block), namespace)
        except NameError:
            # What defines the name may be in a block that was left out.
            if not left_out:
                raise
            left_out.append(f"{block} needs what was left out")
    return left_out
