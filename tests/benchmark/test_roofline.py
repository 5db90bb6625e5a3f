from dataclasses import replace

import pytest
import torch

from v2m.benchmark.operators import Workload
from v2m.benchmark.roofline import KernelRow, Work, bench_roofline, count_work
from v2m.benchmark.timing import Timing

# 8 scans of 2 x 3 x 3 tokens are 144 tokens; rank 1, 4 taps.
SMALL = Workload(grid=3, batch_size=2, channels=4, states=2, dtype=torch.float32, device=torch.device("cpu"))


def test_work_by_hand():
    works = count_work(SMALL)
    numbers = {name: work.bytes / 4 / 144 for name, work in works.items()}
    assert works["scan forward"] == Work(576 * 4, 576 * (10 + 2 + 5), 4 * 144 * (3 * 4 + 3))
    assert works["scan backward"] == Work(576 * 4, 576 * (34 + 2 + 14), 4 * 144 * (6 * 4 + 5))
    assert works["pass forward"].flops == 576 * (17 + 2 * 3 + 11)
    assert works["pass backward"].flops == 576 * (50 + 6 * 3 + 4 + 42)
    assert (numbers["pass forward"], numbers["pass backward"]) == (12, 20)


def test_bfloat16_halves_the_bytes():
    half = replace(SMALL, dtype=torch.bfloat16)
    assert count_work(half)["scan forward"].bytes == count_work(SMALL)["scan forward"].bytes / 2


def test_the_floor_is_the_slowest_part():
    row = KernelRow("scan", Timing(0.4, 0.4, 0.4), Work(1e6, 6e6, 4e6), ceilings=Work(1e7, 2e7, 4e7))
    assert row.floors() == pytest.approx({"exps": 0.1, "FLOPs": 0.3, "bytes": 0.1})
    cells = row.cells()
    assert cells["bound by"] == "FLOPs"
    assert cells["floor / ms"] == "75%"
    assert cells["(exps + FLOPs) / ms"] == "100%"
    assert cells["ms of exps"] == "100.00"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kernel_is_measured_against_the_same_ceilings(dtype):
    rows = bench_roofline(replace(SMALL, dtype=dtype), rounds=1)
    assert [row.kernel for row in rows] == list(count_work(SMALL))
    assert len({row.ceilings for row in rows}) == 1
    ceilings = rows[0].ceilings
    assert min(ceilings.exps, ceilings.flops, ceilings.bytes) > 1e6
    assert all(row.timing.median > 0 for row in rows)
