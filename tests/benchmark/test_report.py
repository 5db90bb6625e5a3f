import io
import json
from dataclasses import dataclass

import pytest
import torch
from rich.console import Console

from v2m.benchmark.hardware import Hardware
from v2m.benchmark.report import file_name, number, table, timing_cells, write_json
from v2m.benchmark.timing import Timing


@dataclass
class Line:
    name: str
    timing: Timing | None

    def cells(self):
        return {"name": self.name, **timing_cells(self.timing)}


LINES = [Line("fast", Timing(0.0123456, 0.012, 0.0131)), Line("wrong", None)]


def test_numbers_that_are_missing_are_dashes():
    assert number(None, ".2f") == "-"
    assert number(1234.5, ",.0f") == "1,234"


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.2e-6, "0.00120"), (1.234e-3, "1.23"), (0.1234, "123"), (12.34567, "12,346")]
)
def test_times_have_three_digits(seconds, text):
    assert timing_cells(Timing(seconds, seconds, seconds))["ms"] == text


def test_a_table_shows_every_row():
    console = Console(file=io.StringIO(), width=80)
    console.print(table(LINES))
    heading, fast, wrong = console.file.getvalue().splitlines()
    assert heading.split() == ["name", "ms", "quartiles"]
    assert fast.split() == ["fast", "12.3", "12.0", "to", "13.1"]
    assert wrong.split() == ["wrong", "-", "-"]


def test_results_say_what_was_measured_on_what(tmp_path):
    hardware = Hardware.of(torch.device("cpu"))
    path = tmp_path / "new" / file_name("scans", hardware, "20260101-000000")
    write_json(path, "scans", hardware, {"rounds": 3}, LINES)
    content = json.loads(path.read_text())
    assert content["topic"] == "scans"
    assert content["settings"] == {"rounds": 3}
    assert content["hardware"]["cpu"] == hardware.cpu
    assert content["rows"] == [
        {"name": "fast", "timing": {"median": 0.0123456, "low": 0.012, "high": 0.0131}},
        {"name": "wrong", "timing": None},
    ]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.name.startswith("scans_")
    assert path.name.endswith("_20260101-000000.json")
    assert set(path.stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    hardware = Hardware.of(torch.device("cpu"))
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_json(path, "scans", hardware, {"device": torch.device("cpu")}, LINES)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
