"""Class scores of a model over a dataset or over image files."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from v2m.data import DataError, ImageSpec, eval_transform, read_image


def best_device() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@torch.inference_mode()
def collect_logits(
    model: nn.Module,
    loader: Iterable[Any],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits ``[B, classes]`` (float32) and class indices ``[B]`` of each batch, on ``device``."""
    model.eval()
    for images, targets in loader:
        with autocast():
            logits = model(images.to(device))
        yield logits.float(), targets.to(device)


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
