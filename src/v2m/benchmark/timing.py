"""Time competitors side by side: in turns, in one process, so that a busy moment hits all of them alike."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

Call = Callable[[], object]
T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)


class Tracker(Protocol):
    """Shows progress: yields the items, told what they are and how many there will be."""

    def __call__(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """Yield the items."""


def silent(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """A tracker that shows nothing."""
    yield from items


@dataclass(frozen=True)
class Timing:
    """Seconds that a call takes: the median and the quartiles of its rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Summarise the seconds of single calls."""
        low, median, high = torch.tensor(seconds).double().quantile(torch.tensor([0.25, 0.5, 0.75]).double())
        return cls(median.item(), low.item(), high.item())


def time_in_turns(
    calls: Mapping[Name, Call], rounds: int, device: torch.device, track: Tracker = silent
) -> dict[Name, Timing]:
    """Time calls by name, one after the other in every round; a round that warms up comes first.

    Args:
        calls: What to time.
        rounds: Times that each is timed.
        device: Where they run; a GPU is waited for before and after each call.
        track: Shows progress.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    turns = [name for _ in range(1 + rounds) for name in calls]
    for name in track(turns, "timing: call", len(turns)):
        seconds[name].append(timed(calls[name], device)[1])
    # The first round compiles, fills caches and grows the allocator's pools.
    return {name: Timing.of(values[1:]) for name, values in seconds.items()}


def timed(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What a call returns, and the seconds that it takes."""
    _synchronize(device)
    started = time.perf_counter()
    result = call()
    _synchronize(device)
    return result, time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
