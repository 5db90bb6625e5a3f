"""Results as tables and JSON."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from v2m.benchmark.hardware import Hardware
from v2m.benchmark.timing import Timing
from v2m.system.files import replace_file
from v2m.system.tables import Column, Kind, TextTable


class Row(Protocol):
    """A line of a result: a dataclass that can show itself."""

    def cells(self) -> dict[str, str]:
        """The row as text by heading: its name, then what is left out last where there is little room."""


def number(value: float | None, spec: str) -> str:
    """A number as text, or a dash where there is none."""
    return "-" if value is None else format(value, spec)


def timing_cells(timing: Timing | None) -> dict[str, str]:
    """Median and quartiles in milliseconds."""
    if timing is None:
        return {"ms": "-", "quartiles": "-"}
    # Three digits that count: timings seldom repeat in a fourth.
    digits = max(0, 2 - math.floor(math.log10(1e3 * timing.median)))
    median, low, high = (f"{1e3 * s:,.{digits}f}" for s in (timing.median, timing.low, timing.high))
    return {"ms": median, "quartiles": f"{low} to {high}"}


def table(rows: Sequence[Row]) -> TextTable:
    """The rows, names to the left and numbers to the right."""
    cells = [row.cells() for row in rows]
    name, *numbers = cells[0]
    table = TextTable(Column(name, Kind.NAME), *map(Column, numbers))
    for row in cells:
        table.add_row(*row.values())
    return table


def write_json(
    path: Path, topic: str, hardware: Hardware, settings: Mapping[str, Any], rows: Sequence[Any]
) -> None:
    """Write results: what was measured, on what, with which settings, and every row."""
    content = dict(
        topic=topic, hardware=asdict(hardware), settings=dict(settings), rows=[asdict(row) for row in rows]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))


def read_json(path: Path, argument: str, topic: str) -> dict[str, Any]:
    """Read results that ``write_json`` wrote.

    Args:
        path: The file.
        argument: The argument that names it, for errors.
        topic: What was measured.

    Raises:
        ValueError: it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["topic"], content["hardware"], content["settings"], content["rows"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{argument}: {path} is no file of results that v2m bench wrote") from None
    if found[0] != topic:
        raise ValueError(f"{argument}: {path} has results of {found[0]}, expected {topic}")
    return content


def file_name(topic: str, hardware: Hardware, date: str) -> str:
    """``<topic>_<hardware>_<date>.json``, in letters that any file system takes."""
    machine = re.sub(r"[^a-z0-9]+", "-", hardware.name.lower()).strip("-")
    return f"{topic}_{machine}_{date}.json"
