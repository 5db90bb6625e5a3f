"""Features of a frozen model over a dataset.

The work is done in parts: it can be stopped and go on, and several processes can share it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from rich.console import Console
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from v2m import __version__
from v2m.data import LabelledImages, Split, eval_transform, open_dataset
from v2m.data.loading import Batch, EvalLoader
from v2m.engine import parallel
from v2m.engine.progress import print_line, track
from v2m.engine.resolve import absolute_source
from v2m.features.files import check_output, read_facts, write_features
from v2m.features.frozen import FrozenModel, pooled_features
from v2m.features.parts import Part, Parts
from v2m.tasks.config import default_data_dir

LONGEST_WAIT = timedelta(days=7)
"""How long processes wait for the slowest one. The launcher notices one that dies."""


@dataclass(frozen=True)
class EmbedConfig:
    """How images are read and features computed.

    Attributes:
        data_dir: Where named datasets are kept.
        batch_size: Images at once.
        workers: Processes that read images, for each process that computes.
        allow_outside: Whether parquet files in a folder may name images outside of it.
    """

    data_dir: str = field(default_factory=default_data_dir)
    batch_size: int = 64
    workers: int = 0
    allow_outside: bool = False


@contextmanager
def processes(device: str) -> Iterator[PartialState]:
    """The processes of this command: those of ``torchrun`` or ``accelerate launch``, or this one alone."""
    parallel.start(device, timeout=LONGEST_WAIT / timedelta(minutes=1))
    state = PartialState()
    try:
        yield state
    finally:
        state.destroy_process_group()


def embed(
    frozen: FrozenModel,
    data: str,
    split: Split,
    output: Path,
    config: EmbedConfig,
    state: PartialState,
    errors: Console,
) -> None:
    """Write the features of a split to a file, unless the file has them already.

    Until the file is whole, its parts are kept in ``<output>.parts``. After a stop, the same call goes on
    with the parts that are missing, with any number of processes. Parts of another model or of other data
    are deleted.

    Args:
        frozen: The model.
        data: Dataset by name or folder.
        split: The split of the dataset.
        output: File that ends in ``.npz`` or ``.parquet``.
        config: How images are read and features computed.
        state: Processes that share the work; all of them call this.
        errors: Where progress goes, and the images that cannot be read.

    Raises:
        ValueError: the file's name, the model or the data cannot be used, or another command writes the file.
        OSError: something could not be read or written.
    """
    check_output(output)
    data = absolute_source(data)
    dataset = open_dataset(
        data, split, Path(config.data_dir), allow_outside=config.allow_outside, division=frozen.division
    )
    if state.is_main_process:
        for line in (*dataset.notes, *(f"warning: {line}" for line in dataset.warnings)):
            print_line(errors, line)
    facts = _facts(frozen, data, split, dataset, config)
    if _holds(output, facts):
        if state.is_main_process:
            print_line(errors, f"{output} has them already")
        return
    # The main process checks the parts before anyone computes, and merges them after everyone has. The other
    # processes meet it at two barriers.
    parts = Parts(output, facts, len(dataset), config.batch_size)
    if not state.is_main_process:
        state.wait_for_everyone()
        _extract(frozen, dataset, parts, config, state, errors)
        state.wait_for_everyone()
        return
    with parts.locked():
        for line in parts.prepare():
            print_line(errors, line)
        state.wait_for_everyone()
        _extract(frozen, dataset, parts, config, state, errors)
        state.wait_for_everyone()
        features = parts.merge(dataset)
        write_features(output, features)
    shutil.rmtree(parts.folder)
    for item in features.facts["unreadable"]:
        print_line(errors, f"v2m: left out: {item['name']}: not a readable image ({item['reason']})")


def _facts(
    frozen: FrozenModel, data: str, split: Split, dataset: LabelledImages, config: EmbedConfig
) -> dict[str, Any]:
    # Two datasets are the same if their images have the same names and classes, in the same order.
    digest = hashlib.sha256(np.asarray(dataset.targets, dtype=np.int64).tobytes())
    for index in range(len(dataset)):
        digest.update(dataset.name(index).encode(errors="surrogateescape") + b"\0")
    allowed = dict(allow_outside=True) if config.allow_outside else {}  # rows may be readable by it alone
    facts = dict(
        model=dict(source=frozen.source, architecture=frozen.architecture, sha256=frozen.sha256),
        data=dict(source=data, split=split, images=len(dataset), sha256=digest.hexdigest(), **allowed),
        classes=dataset.classes,
        images=asdict(frozen.spec),
        batch_size=config.batch_size,
        version=__version__,
    )
    return json.loads(json.dumps(facts))  # as it is read again: lists for tuples


def _holds(output: Path, facts: dict[str, Any]) -> bool:
    """Whether a file has the features of these facts. Batch size and version may differ."""
    if not output.is_file():
        return False
    try:
        found = read_facts(output)
    except ValueError:
        return False
    return all(found.get(key) == facts[key] for key in ("model", "data", "classes", "images"))


def _extract(
    frozen: FrozenModel,
    dataset: LabelledImages,
    parts: Parts,
    config: EmbedConfig,
    state: PartialState,
    errors: Console,
) -> None:
    """Compute this process's share of the missing parts."""
    share = parts.share(state.process_index, state.num_processes)
    if not share:
        return
    dataset.transform = eval_transform(frozen.spec)
    # One loader for all parts, so that workers read the next part while this one is computed. Parts are whole
    # batches, so no batch has images of two.
    images: Any = ConcatDataset([Subset(dataset, part) for part in share])
    pin_memory = state.device.type == "cuda"
    loader = EvalLoader(images, config.batch_size, workers=config.workers, pin_memory=pin_memory)
    model = frozen.model.to(state.device).eval()
    shown: Iterator[Batch] = iter(loader)
    if state.is_main_process:
        shown = track(loader, "embedding: batch", len(loader), errors)
    done = 0
    for part in share:
        batches = [
            (pooled_features(model, batch.images.to(state.device, non_blocking=True)).cpu(), batch)
            for batch in islice(shown, parts.batches)
        ]
        parts.write(part, _gather(batches, part, done))
        done += len(part)


def _gather(batches: Sequence[tuple[Tensor, Batch]], images: range, done: int) -> Part:
    """The part that these batches make up.

    Args:
        batches: Features ``[B, D]`` and batch; the indices of a batch count this process's images.
        images: The part's indices in the dataset.
        done: This process's images in the parts before.
    """
    features = [values for values, _ in batches if len(values)] or [torch.empty(0, 0)]
    places = torch.cat([batch.indices for _, batch in batches]).numpy() + (images.start - done)
    # Batches have names and reasons of unreadable images, in order. Their indices are those that are missing.
    left_out = sorted(set(images) - set(places.tolist()))
    names = [item for _, batch in batches for item in batch.unreadable]
    return Part(
        torch.cat(features).numpy(),
        torch.cat([batch.targets for _, batch in batches]).long().numpy(),  # float where there are none
        places,
        [dict(index=i, name=item.name, reason=item.reason) for i, item in zip(left_out, names, strict=True)],
    )
