"""Class scores of a model over a dataset or over image files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from v2m.data import DataError, ImageSpec, eval_transform, read_image
from v2m.data.errors import shown
from v2m.data.loading import Batch, Unreadable
from v2m.engine.parallel import gather, gather_items
from v2m.tasks.classification.metrics import Scores, score


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a dataset; images that cannot be read are left out of everything else.

    Attributes:
        scores: The scores.
        logits: Class scores ``[images, classes]``.
        targets: Class indices ``[images]``.
        indices: Places in the dataset ``[images]``, in order.
        unreadable: The images that cannot be read.
    """

    scores: Scores
    logits: Tensor
    targets: Tensor
    indices: Tensor
    unreadable: list[Unreadable]


def evaluate(
    model: nn.Module, batches: Iterable[Batch], classes: Sequence[str], accelerator: Accelerator
) -> Evaluation:
    """Score a model; every process has its share of the images, and gets the result.

    Raises:
        DataError: no image can be read.
    """
    found = collect_logits(model, batches, accelerator.device, accelerator.autocast)
    parts, indices, targets, unreadable = [], [], [], []
    for logits, batch in found:
        parts.append(logits)
        indices.append(batch.indices)
        targets.append(batch.targets)
        unreadable += batch.unreadable
    nothing = torch.empty(0, dtype=torch.long)
    places = gather(accelerator, torch.cat([nothing, *indices]))
    order = places.argsort()
    unreadable = gather_items(accelerator, unreadable)
    if not len(order):
        name, reason = unreadable[0]
        raise DataError(f"data: none of {len(unreadable)} images can be read, as {shown(name)} ({reason})")
    none = torch.empty(0, len(classes), device=accelerator.device)
    all_logits = gather(accelerator, torch.cat([none, *parts]))[order]
    all_targets = gather(accelerator, torch.cat([nothing, *targets]))[order]
    scores = score(all_logits, all_targets, list(classes))
    return Evaluation(scores, all_logits, all_targets, places[order], unreadable)


@torch.no_grad()
def collect_logits(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[tuple[Tensor, Batch]]:
    """Logits ``[B, classes]`` (float32, on ``device``) of each batch that has images, and the batch."""
    model.eval()
    for batch in batches:
        if len(batch.targets):
            with autocast():
                logits = model(batch.images.to(device, non_blocking=True))
            yield logits.float(), batch
        else:
            yield torch.empty(0, device=device), batch


def classify_files(
    model: nn.Module, spec: ImageSpec, paths: list[Path], device: torch.device, batch_size: int
) -> Iterator[tuple[Path, Tensor | DataError]]:
    """Class probabilities ``[classes]`` of each file, in order; the error for a file that cannot be read."""
    transform = eval_transform(spec)
    model.to(device).eval()
    for start in range(0, len(paths), batch_size):
        batch: dict[Path, Tensor | DataError] = {}
        for path in paths[start : start + batch_size]:
            try:
                batch[path] = transform(read_image(path))
            except DataError as error:
                batch[path] = error
        images = [image for image in batch.values() if isinstance(image, Tensor)]
        if images:
            with torch.inference_mode():
                rows = iter(model(torch.stack(images).to(device)).float().softmax(-1).cpu())
        for path, image in batch.items():
            yield path, next(rows) if isinstance(image, Tensor) else image
