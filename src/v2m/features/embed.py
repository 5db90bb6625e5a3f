"""Features of a frozen model over a dataset: in parts, so that it can be stopped, and shared by processes."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from rich.console import Console
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from v2m import __version__
from v2m.data import DATASETS, LabelledImages, Split, eval_transform, open_dataset
from v2m.data.loading import Batch, EvalLoader
from v2m.engine import parallel
from v2m.engine.progress import print_line, track
from v2m.features.arrays import read_arrays
from v2m.features.files import (
    READ_ERRORS,
    Features,
    LeftOut,
    check_output,
    read_facts,
    read_plain,
    write_features,
)
from v2m.features.frozen import FrozenModel, pooled_features
from v2m.system.errors import DataError, first_line
from v2m.system.files import check_lock, read_json, refuse_link, replace_file
from v2m.tasks.config import default_data_dir
from v2m.tasks.typed import typed

IMAGES_OF_A_PART, LOCK = 512, ".lock"
LONGEST_WAIT = timedelta(days=7)  # for the slowest process; one that dies is noticed by its launcher


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
def processes(device: Literal["auto", "cpu"]) -> Iterator[PartialState]:
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

    While it is at work, whole parts are kept in ``<output>.parts``; stopped, it goes on after them, with any
    number of processes. Parts of another model or other data are dropped.

    Args:
        frozen: The model.
        data: Dataset by name or folder.
        split: Which images.
        output: File that ends in ``.npz`` or ``.parquet``.
        config: How.
        state: Processes that share the work; all of them call this.
        errors: Where progress goes, and the images that cannot be read.

    Raises:
        ValueError: the name of the file, the model or the data cannot be used.
        OSError: something could not be read or written.
    """
    check_output(output)
    if data not in DATASETS and Path(data).is_dir():
        data = str(Path(data).resolve())
    dataset = open_dataset(data, split, Path(config.data_dir), allow_outside=config.allow_outside)
    if state.is_main_process:
        for line in dataset.warnings:
            print_line(errors, f"warning: {line}")
    facts = _facts(frozen, data, split, dataset, config)
    if _holds(output, facts):
        if state.is_main_process:
            print_line(errors, f"{output} has them already")
        return
    parts = _Parts(output, facts, len(dataset), config.batch_size)
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


def parts_folder(output: Path) -> Path:
    """Where the parts of a file are until it is whole."""
    return output.with_name(f"{output.name}.parts")


def _facts(
    frozen: FrozenModel, data: str, split: Split, dataset: LabelledImages, config: EmbedConfig
) -> dict[str, Any]:
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
    """Whether a file has these features, whole."""
    if not output.is_file():
        return False
    try:
        found = read_facts(output)
    except ValueError:
        return False
    return all(found.get(key) == facts[key] for key in ("model", "data", "classes", "images"))


class _Part(NamedTuple):
    """Features, class indices and places of the images of a part, and those that could not be read."""

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    unreadable: list[dict[str, Any]]


class _Parts:
    """The parts of a file: part n has the images from ``n * size``, whoever computes it.

    Args:
        output: The file.
        facts: What its features are of.
        images: Images of the dataset.
        batch_size: Images of a batch; a part is whole batches, so that the batches are always the same ones.
    """

    def __init__(self, output: Path, facts: dict[str, Any], images: int, batch_size: int) -> None:
        self.folder = parts_folder(output)
        self.batches = max(1, IMAGES_OF_A_PART // batch_size)
        self._size, self._images, self._facts = self.batches * batch_size, images, facts
        self._facts_path = self.folder / "facts.json"

    def share(self, rank: int, processes: int) -> list[range]:
        """Images of each part that is missing, of every ``processes``-th part."""
        starts = range(0, self._images, self._size)[rank::processes]
        return [self._range(start) for start in starts if not self._path(start).is_file()]

    def _range(self, start: int) -> range:
        return range(start, min(start + self._size, self._images))

    def _path(self, start: int) -> Path:
        return self.folder / f"part-{start:010d}.npz"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other commands out of it."""
        refuse_link(self.folder, "delete it")
        self.folder.mkdir(parents=True, exist_ok=True)
        check_lock(self.folder / LOCK)
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                yield
        except Timeout:
            raise ValueError(f"output: another command is at work in {self.folder}") from None

    def prepare(self) -> Iterator[str]:
        """Drop parts that are damaged or of something else; yields what a user should know."""
        paths = sorted(self.folder.glob("part-*.npz"))
        try:
            found = read_json(self._facts_path)
        except (OSError, ValueError):
            found = None
        found = found if isinstance(found, dict) else {}
        other = [key for key, value in self._facts.items() if found.get(key) != value]
        if other:
            for path in paths:
                path.unlink()
            if paths and found:
                yield f"starts again: the parts in {self.folder} are of another {', another '.join(other)}"
            text = json.dumps(self._facts)
            replace_file(self._facts_path, lambda partial: partial.write_text(text, encoding="utf-8"))
            return
        damaged = [path for path in paths if not self._is_whole(path)]
        for path in damaged:
            path.unlink()
            yield f"computes {path} again, which is damaged"
        if len(paths) > len(damaged):
            parts = -(-self._images // self._size)
            yield f"goes on: {len(paths) - len(damaged)} of {parts} parts are there"

    def _is_whole(self, path: Path) -> bool:
        try:
            self._read(int(path.stem.removeprefix("part-")))
        except (OSError, ValueError):
            return False
        return True

    def write(self, images: range, part: _Part) -> None:
        """Keep the part of these images."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                arrays = part._replace(unreadable=np.array(json.dumps(part.unreadable)))  # type: ignore[arg-type]
                np.savez(file, **arrays._asdict())

        replace_file(self._path(images.start), write)

    def _read(self, start: int) -> _Part:
        path = self._path(start)
        try:
            part = _Part(*read_arrays(path, _Part._fields).values())  # type: ignore[arg-type]
            part = part._replace(unreadable=read_plain(str(part.unreadable)))
            left_out = [typed(LeftOut, item, "unreadable") for item in part.unreadable]
        except READ_ERRORS as error:
            raise OSError(f"{path} cannot be read ({first_line(error)}); the same command goes on") from None
        shapes = (part.features.ndim, part.targets.ndim, part.places.ndim)
        types = (part.features.dtype, part.targets.dtype, part.places.dtype)
        is_whole = shapes == (2, 1, 1) and types == (np.float32, np.int64, np.int64)
        is_whole = is_whole and len(part.features) == len(part.targets) == len(part.places)
        if not is_whole or sorted([*part.places.tolist(), *(item.index for item in left_out)]) != list(
            self._range(start)
        ):
            raise OSError(f"{path} is not whole; the same command goes on")
        return part

    def merge(self, dataset: LabelledImages) -> Features:
        """All parts, in the order of the dataset.

        Raises:
            DataError: no image of the dataset can be read.
            OSError: a part cannot be read.
        """
        found = []
        features: npt.NDArray[np.float32] | None = None
        count = 0
        for start in range(0, self._images, self._size):
            part = self._read(start)
            found.append(part._replace(features=part.features[:0]))
            if not len(part.features):
                continue
            if features is None:
                features = np.empty((self._images, part.features.shape[1]), np.float32)
            if part.features.shape[1] != features.shape[1]:
                raise OSError(f"{self._path(start)} has features of another width, delete {self.folder}")
            features[count : count + len(part.features)] = part.features
            count += len(part.features)
        unreadable = [item for part in found for item in part.unreadable]
        if features is None:
            name, reason = unreadable[0]["name"], unreadable[0]["reason"]
            raise DataError(f"data: none of {self._images} images can be read, as {name} ({reason})")
        index = np.concatenate([part.places for part in found])
        return Features(
            features[:count],
            np.concatenate([part.targets for part in found]),
            index,
            [dataset.name(i) for i in index.tolist()],
            self._facts | dict(unreadable=unreadable),
        )


def _extract(
    frozen: FrozenModel,
    dataset: LabelledImages,
    parts: _Parts,
    config: EmbedConfig,
    state: PartialState,
    errors: Console,
) -> None:
    """Compute this process's share of the parts that are missing."""
    share = parts.share(state.process_index, state.num_processes)
    if not share:
        return
    dataset.transform = eval_transform(frozen.spec)
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


def _gather(batches: Sequence[tuple[Tensor, Batch]], images: range, done: int) -> _Part:
    """A part of its batches; places in them count from ``done``."""
    features = [values for values, _ in batches if len(values)] or [torch.empty(0, 0)]
    places = torch.cat([batch.indices for _, batch in batches]).numpy() + (images.start - done)
    left_out = sorted(set(images) - set(places.tolist()))
    names = [item for _, batch in batches for item in batch.unreadable]
    return _Part(
        torch.cat(features).numpy(),
        torch.cat([batch.targets for _, batch in batches]).long().numpy(),  # float where there are none
        places,
        [dict(index=i, name=item.name, reason=item.reason) for i, item in zip(left_out, names, strict=True)],
    )
