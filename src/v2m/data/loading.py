"""Loaders whose random numbers follow from the seed, the epoch and an image's position in the epoch.

So a run can go on from any step. No states of generators are kept, and it does not matter which process or
which worker reads an image.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from v2m.data.errors import UnreadableImageError
from v2m.system.errors import DataError
from v2m.system.open_files import reserve_files
from v2m.system.workers import leave_stopping, starting_workers

MOST_REPLACEMENTS = 20
"""Images that are tried for one position before training gives up."""

T = TypeVar("T")

Collate: TypeAlias = Callable[[Sequence[tuple[Any, Any]]], tuple[Any, Any]]


class Images(Protocol):
    """A dataset of (image, target) pairs by number; the target may be a class, a map or objects."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Any, Any]: ...


class OpenedImages(Images, Protocol):
    """One split of a dataset, as it is opened.

    Attributes:
        warnings: A line for each kind of thing that is odd about it.
        notes: A line for each thing to know of it that is not odd.
    """

    warnings: list[str]
    notes: list[str]


class Unreadable(NamedTuple):
    """An image that could not be read or prepared: where it is, and why."""

    name: str
    reason: str


class Batch(NamedTuple):
    """Images of a step, or of a part of it.

    Attributes:
        images: ``[B, C, H, W]``, or a list where sizes differ; empty if none could be read.
        targets: Class indices ``[B]``, or what else the task has for each image.
        indices: Their numbers in the dataset ``[B]``.
        unreadable: What could not be read; evaluation leaves it out, training takes the next image instead.
    """

    images: Any
    targets: Any
    indices: Tensor
    unreadable: list[Unreadable]


def collate_tensors(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Images and targets, each stacked."""
    images, targets = default_collate(list(samples))
    return images, targets


def collate_lists(samples: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Images and targets as lists, since their sizes differ."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def seed_everything(*key: int) -> None:
    """Seed Python, NumPy and PyTorch's CPU generator by a key of numbers."""
    state = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    torch.random.default_generator.manual_seed(int(state[2]))


class TrainLoader:
    """Shuffled images, step by step, of which this process gets its share.

    A step has the same images with the same augmentation whatever the number of processes and parts is.

    Args:
        dataset: The images, with their augmentation.
        batch_size: Images of a step, over all processes; all of a dataset that is smaller.
        accumulate: Parts that a process takes its share in.
        even: Whether the parts must be of an even size, as mixup wants.
        repeats: Times that an image comes in a row, each time augmented anew; an epoch then has fewer
            different images (repeated augmentation, arXiv:1902.05509).
        seed: Seed of order and augmentation.
        workers: Processes that read images, for each process that trains.
        rank: Number of this process.
        processes: Number of processes.
        pin_memory: Whether batches are put where a GPU can fetch them.
        collate: Makes images and targets of a batch of (image, target) pairs.

    Raises:
        DataError: there are too few images.
        ValueError: ``batch_size`` cannot be shared evenly, or workers need more open files than the limit.
    """

    def __init__(
        self,
        dataset: Images,
        batch_size: int,
        *,
        accumulate: int = 1,
        even: bool = False,
        repeats: int = 1,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        processes: int = 1,
        pin_memory: bool = False,
        collate: Collate = collate_tensors,
    ) -> None:
        reserve_files(workers)
        # A step is cut evenly, into parts that are even themselves where mixup pairs their images.
        parts = processes * accumulate
        unit = parts * (2 if even else 1)
        if batch_size % unit:
            shares = f"{processes} processes x {accumulate} parts" + (", each even for mixup" if even else "")
            raise ValueError(f"batch_size is {batch_size}, expected a multiple of {unit} ({shares})")
        if len(dataset) < (least := max(2, unit)):
            images = f"{len(dataset)} training image" + ("s" if len(dataset) != 1 else "")
            raise DataError(f"data: {images}, expected at least {least}")
        # A dataset that is smaller than a step makes a smaller step. Images beyond whole steps wait for
        # another epoch, in which the order differs.
        self.batch_size = min(batch_size, len(dataset) // unit * unit)
        self.steps = len(dataset) // self.batch_size
        self._accumulate = accumulate
        self._sampler = _TrainSampler(
            len(dataset), self.batch_size, self.batch_size // parts, repeats, seed, rank, processes
        )
        self._loader: DataLoader[Any] = DataLoader(
            _Augmented(dataset, seed),
            batch_sampler=self._sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=partial(_collate_train, collate),
            worker_init_fn=leave_stopping,
            pin_memory=pin_memory,
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Batch]]:
        """The parts of every step of an epoch, from a step (counted from 0) on."""
        self._sampler.epoch, self._sampler.first_step = epoch, first_step
        with starting_workers():
            batches = iter(self._loader)
        return _grouped(batches, self._accumulate)


class _Draw(NamedTuple):
    """An image of the dataset, and the position of an epoch that it was drawn for."""

    image: int
    epoch: int
    position: int


class _TrainSampler(Sampler[list[_Draw]]):
    """The parts of this process: steps are pieces of a permutation, shares are pieces of steps."""

    def __init__(
        self, images: int, batch_size: int, part: int, repeats: int, seed: int, rank: int, processes: int
    ) -> None:
        self._images, self._batch_size, self._part, self._repeats = images, batch_size, part, repeats
        self._seed, self._rank, self._processes = seed, rank, processes
        self.epoch, self.first_step = 1, 0

    def __iter__(self) -> Iterator[list[_Draw]]:
        # All processes draw the same order, so none has to tell the others.
        generator = np.random.default_rng((self._seed, self.epoch))
        order = generator.permutation(self._images).repeat(self._repeats)
        share = self._batch_size // self._processes
        for step in range(self.first_step, self._images // self._batch_size):
            first = step * self._batch_size + self._rank * share
            for start in range(first, first + share, self._part):
                yield [_Draw(int(order[p]), self.epoch, p) for p in range(start, start + self._part)]

    def __len__(self) -> int:
        return self._images // self._batch_size * (self._batch_size // self._processes // self._part)


class _Augmented(Dataset[Any]):
    """Images with random numbers by position; the next image instead of one that cannot be used."""

    def __init__(self, dataset: Images, seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __getitem__(self, drawn: _Draw) -> tuple[Any, Any, int, list[Unreadable]]:
        unreadable: list[Unreadable] = []
        for offset in range(min(MOST_REPLACEMENTS, len(self._dataset))):
            index = (drawn.image + offset) % len(self._dataset)
            # Another image gets other random numbers: augmentation may have failed because of those.
            attempt = (offset,) if offset else ()
            seed_everything(self._seed, drawn.epoch, drawn.position, *attempt)
            try:
                return *self._dataset[index], index, unreadable
            except UnreadableImageError as error:
                unreadable.append(Unreadable(error.name, error.reason))
        raise DataError(
            f"data: {len(unreadable)} images in a row cannot be used, from {unreadable[0].name} "
            f"({unreadable[0].reason}) to {unreadable[-1].name}"
        )


def _collate_train(collate: Collate, samples: Sequence[tuple[Any, Any, int, list[Unreadable]]]) -> Batch:
    images, targets = collate([sample[:2] for sample in samples])
    indices = torch.tensor([sample[2] for sample in samples])
    return Batch(images, targets, indices, [item for sample in samples for item in sample[3]])


def _grouped(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while group := list(islice(items, size)):
        yield group


class EvalLoader:
    """Every image once, in order, of which this process gets every ``processes``-th.

    Args:
        dataset: The images.
        batch_size: Images of a batch.
        workers: Processes that read images.
        rank: Number of this process.
        processes: Number of processes.
        pin_memory: Whether batches are put where a GPU can fetch them.
        skip: Images of this share that are left out, since they are done.
        collate: Makes images and targets of a batch of (image, target) pairs.
    """

    def __init__(
        self,
        dataset: Images,
        batch_size: int,
        *,
        workers: int = 0,
        rank: int = 0,
        processes: int = 1,
        pin_memory: bool = False,
        skip: int = 0,
        collate: Collate = collate_tensors,
    ) -> None:
        reserve_files(workers)
        self._loader: DataLoader[Any] = DataLoader(
            _Whole(dataset),
            batch_size,
            sampler=range(rank, len(dataset), processes)[skip:],
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=partial(_collate_eval, collate),
            worker_init_fn=leave_stopping,
            pin_memory=pin_memory,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        with starting_workers():
            return iter(self._loader)


class _Whole(Dataset[Any]):
    """Images by number, or what kept one from being read: an error would end the worker's whole batch."""

    def __init__(self, dataset: Images) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> tuple[Any, Any, int] | Unreadable:
        try:
            return *self._dataset[index], index
        except UnreadableImageError as error:
            return Unreadable(error.name, error.reason)

    def __len__(self) -> int:
        return len(self._dataset)


def _collate_eval(collate: Collate, samples: Sequence[tuple[Any, Any, int] | Unreadable]) -> Batch:
    unreadable = [sample for sample in samples if isinstance(sample, Unreadable)]
    read = [sample for sample in samples if not isinstance(sample, Unreadable)]
    # A batch without a single readable image is an empty one, so that it is counted all the same.
    images, targets = collate([sample[:2] for sample in read]) if read else (torch.empty(0), torch.empty(0))
    return Batch(images, targets, torch.tensor([sample[2] for sample in read], dtype=torch.long), unreadable)
