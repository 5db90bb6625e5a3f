import pickle
from dataclasses import replace

import pytest
import torch

from v2m.benchmark import operators
from v2m.benchmark.competitors import COMPETITORS, Competitor, find_competitors, our_scan, to_lines, to_map
from v2m.benchmark.operators import MODES, OperatorRow, Workload, bench_operators, build_call, panels
from v2m.benchmark.timing import Timing

CPU = torch.device("cpu")
SMALL = Workload(grid=3, batch_size=2, channels=4, states=2, dtype=torch.float32, device=CPU)
# The compiled loop is the lean loop, and takes 20 s to compile.
HERE = [name for name in find_competitors([], CPU) if name != "compiled_loop"]


def bench(names, workload=SMALL):
    """Rows by mode and competitor."""
    groups = list(bench_operators([workload], names, rounds=2, memory=False))
    assert [group[0].mode for group in groups] == list(MODES)
    return {group[0].mode: {row.competitor: row for row in group} for group in groups}


def wrong_gradient(scan):
    y = our_scan(scan)
    return y.detach() + 1.001 * (y - y.detach())


def nan_in_one_cell(scan):
    y = our_scan(scan)
    return torch.where(torch.arange(y.shape[1]).view(-1, 1, 1) == 1, torch.nan, y)


def broken(scan):
    raise RuntimeError("no such kernel\nand more lines")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_competitor_is_right_and_timed(dtype):
    for rows in bench(HERE, replace(SMALL, dtype=dtype)).values():
        assert list(rows) == HERE
        for row in rows.values():
            assert row.problem is None, row
            assert row.error <= operators.LIMITS[dtype]
            assert row.timing.median > 0
            assert row.ns_per_token == pytest.approx(1e9 * row.timing.median / (8 * 2 * 3 * 3))
            assert row.ratio == pytest.approx(row.timing.median / rows["ours"].timing.median)


@pytest.mark.parametrize(
    ("function", "problems"),
    [
        (lambda scan: 1.001 * our_scan(scan), ("wrong", "wrong")),
        (lambda scan: our_scan(replace(scan, reverse=not scan.reverse)), ("wrong", "wrong")),
        (nan_in_one_cell, ("wrong", "wrong")),
        (wrong_gradient, (None, "wrong")),
        (broken, ("failed: no such kernel", "failed: no such kernel")),
    ],
)
def test_a_wrong_competitor_is_not_timed(monkeypatch, function, problems):
    monkeypatch.setitem(COMPETITORS, "other", Competitor(function))
    for rows, problem in zip(bench(["other", "ours"]).values(), problems, strict=True):
        other, ours = rows["other"], rows["ours"]
        assert ours.timing is not None
        if problem is None:
            assert other.problem is None
            assert other.timing is not None
        else:
            assert other.problem.startswith(problem)
            assert other.timing is other.ns_per_token is other.memory is None
            assert ours.ratio is None, "there is no time to compare with"
            assert "error" in other.cells()


@pytest.mark.parametrize("line", [0, 4])
def test_some_lines_of_a_large_map_are_checked(monkeypatch, line):
    def wrong_in_a_line(scan):
        y = our_scan(scan)
        dim = 1 if scan.axis == "row" else 2
        return y + (torch.arange(5).view(-1, *[1] * (3 - dim)) == line)

    monkeypatch.setitem(COMPETITORS, "other", Competitor(wrong_in_a_line))
    workload = replace(SMALL, grid=5)
    monkeypatch.setattr(operators, "UPDATES_CHECKED", 3 * 2 * 5 * 4 * 2)  # three lines of five: 0, 2 and 4
    for rows in bench(["ours", "other"], workload).values():
        assert rows["ours"].problem is None
        assert rows["other"].problem.startswith("wrong")


def test_the_layer_has_eight_different_scans():
    scans = SMALL.scans()
    assert SMALL.tokens == 8 * 2 * 3 * 3
    assert [scan.arguments.B is None for scan in scans] == [False, True] * 4
    assert [scan.arguments.C is None for scan in scans] == [True, False] * 4
    directions = {(scan.axis, scan.reverse, scan.arguments.B is None) for scan in scans}
    assert len(directions) == 8
    assert len({scan.arguments.u.sum().item() for scan in scans}) == 8


@pytest.mark.parametrize("scan", SMALL.scans()[:5:2], ids=lambda scan: f"{scan.axis} {scan.reverse}")
def test_lines_are_in_the_order_of_the_scan_and_come_back(scan):
    x = scan.arguments.u
    lines = to_lines(x, scan)
    assert lines.shape == (3, 6, 4)
    start = x[0, -1 if scan.reverse else 0, 0] if scan.axis == "col" else x[0, 0, -1 if scan.reverse else 0]
    assert torch.equal(lines[0, 0], start)
    assert torch.equal(to_map(lines, scan), x)


def test_choosing_competitors():
    assert find_competitors([], CPU)[0] == "ours"
    assert "mamba_ssm" not in find_competitors([], CPU)
    assert find_competitors(["lean_loop", "ours", "lean_loop"], CPU) == ["lean_loop", "ours"]
    with pytest.raises(ValueError, match="'lean_lop' is unknown, nearest: lean_loop"):
        find_competitors(["lean_lop"], CPU)
    with pytest.raises(ValueError, match="mamba_ssm needs a CUDA GPU"):
        find_competitors(["mamba_ssm"], CPU)


def test_a_package_that_is_not_installed_is_left_out(monkeypatch):
    missing = Competitor(our_scan, package="no_such_package")
    monkeypatch.setitem(COMPETITORS, "other", missing)
    assert "other" not in find_competitors([], CPU)
    with pytest.raises(ValueError, match="other needs the package no_such_package"):
        find_competitors(["other"], CPU)


def test_memory_is_measured_of_what_is_timed(monkeypatch):
    asked = []

    def peak_memory(build, *arguments, device):
        asked.append((build, *arguments, device))
        return 7.0

    monkeypatch.setattr(operators, "peak_memory", peak_memory)
    groups = list(bench_operators([SMALL], ["ours"], rounds=1))
    assert [row.memory for group in groups for row in group] == [7.0, 7.0]
    assert asked == [(build_call, "ours", SMALL, mode, CPU) for mode in MODES]


def test_what_is_measured_can_be_sent_to_another_process():
    build, *arguments = pickle.loads(pickle.dumps((build_call, "ours", SMALL, MODES[1])))
    assert arguments[1] == SMALL
    build(*arguments)()


def test_panels_hold_the_points_of_a_plot():
    timing = Timing(1.0, 1.0, 1.0)
    rows = [
        OperatorRow("ours", mode, grid, timing=timing, ns_per_token=2.0 * grid, memory=grid)
        for mode in MODES
        for grid in (4, 8)
    ]
    time, memory, *_ = panels(rows)
    assert (time.title, time.points) == ("forward", [("ours", 4, 8.0), ("ours", 8, 16.0)])
    assert memory.points == [("ours", 4, 4), ("ours", 8, 8)]
