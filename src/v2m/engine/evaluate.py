"""Scores of a model over a dataset."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from v2m.data.loading import Batch, Unreadable
from v2m.engine.parallel import gather_items, in_any
from v2m.engine.stopping import Interrupted
from v2m.system.errors import DataError
from v2m.tasks.evaluation import Results


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a dataset.

    Attributes:
        scores: The scores, of the task's kind.
        results: What the scores are computed from, of the task's kind.
        unreadable: The images that cannot be read. Scores and results are without them.
    """

    scores: Any
    results: Any
    unreadable: list[Unreadable]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    results: Results,
    accelerator: Accelerator,
    must_stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """Score a model. Every process has its share of the images, and gets the scores of all.

    Args:
        model: The model, on the device.
        batches: The share of this process.
        results: Where results are added. It is empty at first.
        accelerator: The processes.
        must_stop: Asked before each batch; if any process says yes, all of them stop.

    Raises:
        DataError: no image can be read.
        Interrupted: it was stopped.
    """
    model.eval()
    found: list[Unreadable] = []
    shares = iter(batches)
    while True:
        # A process may have a batch less than others, and goes on voting.
        batch = next(shares, None)
        has_batch, is_stopped = in_any(accelerator, batch is not None, bool(must_stop and must_stop()))
        if is_stopped:
            raise Interrupted("stopped in an evaluation")
        if not has_batch:
            break
        if batch is None:
            continue
        found += batch.unreadable
        if len(batch.indices):
            results.add(model, batch, accelerator.device, accelerator.autocast)
    # Results are gathered, not scores: a mean precision, say, is no mean over processes.
    results.merge(gather_items(accelerator, [results.state()]))
    unreadable = gather_items(accelerator, found)
    if not results.images:
        name, reason = unreadable[0]
        raise DataError(f"data: none of {len(unreadable)} images can be read, as {name} ({reason})")
    return Evaluation(results.scores(), results, unreadable)
