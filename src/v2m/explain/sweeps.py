"""How fast sweeps come to the exact recurrence, on a trained model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from v2m.layers import CoupledScan


@dataclass(frozen=True)
class RefinementRow:
    """A model with some number of sweeps, beside the exact one.

    Attributes:
        sweeps: Sweeps of every scan; None for the exact recurrence.
        error: Largest difference of a logit from the exact model's, as a share of the largest exact logit.
        agreement: Share of images whose best class is that of the exact model.
        top1: Share of images whose best class is theirs.
    """

    sweeps: int | None
    error: float
    agreement: float
    top1: float


@contextmanager
def use_sweeps(model: nn.Module, sweeps: int | None) -> Iterator[None]:
    """Run every coupled scan of a model with so many sweeps; None for the exact recurrence.

    Raises:
        ValueError: the model has no coupled scans.
    """
    scans = [module for module in model.modules() if isinstance(module, CoupledScan)]
    if not scans:
        raise ValueError("model: it has no coupled scans, expected mixer 'exact'")
    # Scans may have different numbers of sweeps: each gets its own back.
    before = [scan.sweeps for scan in scans]
    try:
        for scan in scans:
            scan.sweeps = sweeps
        yield
    finally:
        for scan, value in zip(scans, before, strict=True):
            scan.sweeps = value


@torch.inference_mode()
def measure_refinement(
    model: nn.Module, images: Tensor, targets: Tensor, sweeps: Sequence[int]
) -> Iterator[RefinementRow]:
    """Compare a model at each number of sweeps with the same model under the exact recurrence.

    The first row is that of the exact recurrence.

    Args:
        model: A model with coupled scans, trained with any number of sweeps or none.
        images: Images ``[B, in_chans, height, width]``.
        targets: Their classes ``[B]``.
        sweeps: Numbers of sweeps.

    Raises:
        ValueError: the model has no coupled scans.
    """
    with use_sweeps(model, None):
        exact = model.eval()(images)
    best = exact.argmax(-1)
    yield RefinementRow(None, 0.0, 1.0, (best == targets).float().mean().item())
    for count in sweeps:
        with use_sweeps(model, count):
            logits = model(images)
        found = logits.argmax(-1)
        yield RefinementRow(
            count,
            # A share of the largest logit: logits near 0 would make relative errors of any size.
            ((logits - exact).abs().max() / exact.abs().max()).item(),
            (found == best).float().mean().item(),
            (found == targets).float().mean().item(),
        )
