"""Time competitors side by side.

They take turns in one process, so that a busy moment of the machine hits all of them alike.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

Call = Callable[[], object]
T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)


class Tracker(Protocol):
    """Shows progress over items while it yields them."""

    def __call__(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """Yield the ``total`` items, and show that these are ``what``."""


def silent(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """A tracker that shows nothing."""
    yield from items


@dataclass(frozen=True)
class Timing:
    """Seconds that a call takes: median, lower and upper quartile over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Summarise the seconds of single calls."""
        # Not mean and deviation: what disturbs a call only makes it longer, now and then by much.
        low, median, high = torch.tensor(seconds).double().quantile(torch.tensor([0.25, 0.5, 0.75]).double())
        return cls(median.item(), low.item(), high.item())


def time_in_turns(
    calls: Mapping[Name, Call], rounds: int, device: torch.device, track: Tracker = silent
) -> dict[Name, Timing]:
    """Time calls. In each round every call has one turn, in the same order.

    Args:
        calls: What to time, by name.
        rounds: Times that each is timed, after one round that does not count.
        device: Where they run; a GPU is waited for before and after each call.
        track: Shows progress.

    Returns:
        The time of each call, by name.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    turns = [name for _ in range(1 + rounds) for name in calls]
    for name in track(turns, "timing: call", len(turns)):
        seconds[name].append(timed(calls[name], device)[1])
    # The first round compiles, fills caches and grows the allocator's pools.
    return {name: Timing.of(values[1:]) for name, values in seconds.items()}


def timed(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What a call returns, and the seconds that it takes."""
    # A GPU works on its own: what it has yet to do must not count here, and what it is given must be done.
    _synchronize(device)
    started = time.perf_counter()
    result = call()
    _synchronize(device)
    return result, time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
