"""Scores of a model over a dataset."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from v2m.data.loading import Batch, Unreadable
from v2m.engine.parallel import gather_items
from v2m.system.errors import DataError, shown
from v2m.tasks.evaluation import Results


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a dataset; images that cannot be read are left out of everything else.

    Attributes:
        scores: The scores, of the task's kind.
        results: What they are of, likewise.
        unreadable: The images that cannot be read.
    """

    scores: Any
    results: Any
    unreadable: list[Unreadable]


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[Batch], results: Results, accelerator: Accelerator
) -> Evaluation:
    """Score a model; every process has its share of the images, and gets the result.

    Args:
        model: The model, on the device.
        batches: The share of this process.
        results: Where results go, empty.
        accelerator: The processes.

    Raises:
        DataError: no image can be read.
    """
    model.eval()
    found = []
    for batch in batches:
        found += batch.unreadable
        if len(batch.indices):
            results.add(model, batch, accelerator.device, accelerator.autocast)
    results.merge(gather_items(accelerator, [results.state()]))
    unreadable = gather_items(accelerator, found)
    if not results.images:
        name, reason = unreadable[0]
        raise DataError(f"data: none of {len(unreadable)} images can be read, as {shown(name)} ({reason})")
    return Evaluation(results.scores(), results, unreadable)
