"""Processes that work together: how they are joined, what they share, and when one is lost."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch.distributed import DistError

from v2m.engine.device import find_device
from v2m.engine.processes import ProcessLostError, is_reader_lost, reader_lost, world_size
from v2m.system.errors import first_line

T = TypeVar("T")

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
"""accelerate's names of our precisions."""
PLACE = "ACCELERATE_TORCH_DEVICE"
"""The variable that tells accelerate its device."""


def start(device: str = "auto", precision: str = "fp32", timeout: float = 10.0) -> Accelerator:
    """Join the processes that torchrun or accelerate started, or be the only one.

    Args:
        device: What ``find_device`` takes. Several processes take a card each, so they name a kind at most.
        precision: One of ``PRECISIONS``.
        timeout: Minutes after which a process that does not answer counts as lost.

    Raises:
        ValueError: there is no such device, or several processes cannot share it.
    """
    found = find_device(device)
    is_alone = world_size() == 1
    if not is_alone and (found.index is not None or found.type == "mps"):
        raise ValueError(
            f"device: {found} with {world_size()} processes, expected cuda, xpu or cpu: "
            "each process takes the card of its own number"
        )
    if not torch.distributed.is_initialized():  # what an earlier run in this process has set does not count
        AcceleratorState._reset_state(reset_partial_state=True)
    patience = InitProcessGroupKwargs(timeout=timedelta(minutes=timeout))
    with _placed(found) if is_alone else nullcontext():
        return Accelerator(
            cpu=found.type == "cpu", mixed_precision=PRECISIONS[precision], kwargs_handlers=[patience]
        )


@contextmanager
def _placed(device: torch.device) -> Iterator[None]:
    """Have accelerate place its only process on a device. It has no argument for that, but a variable."""
    if device.index is not None:  # pinned memory and libraries go by what is current
        torch.accelerator.set_device_index(device.index)
    before = os.environ.get(PLACE)
    os.environ[PLACE] = str(device)
    try:
        yield
    finally:
        if before is None:
            del os.environ[PLACE]
        else:
            os.environ[PLACE] = before


def from_main(accelerator: Accelerator, make: Callable[[], T]) -> T:
    """What the main process makes, in every process."""
    made = [make() if accelerator.is_main_process else None]
    return broadcast_object_list(made)[0]


def in_any(accelerator: Accelerator, *questions: bool) -> list[bool]:
    """For each question, whether any process says yes. All of them ask at the same time."""
    if accelerator.num_processes == 1:
        return list(questions)
    votes = torch.tensor(questions, dtype=torch.float32, device=accelerator.device)
    return [number > 0 for number in accelerator.reduce(votes).tolist()]


def gather_items(accelerator: Accelerator, items: Sequence[T]) -> list[T]:
    """The items of all processes, in every process."""
    return list(items) if accelerator.num_processes == 1 else gather_object(list(items))


@contextmanager
def lost_processes(accelerator: Accelerator) -> Iterator[None]:
    """Say in one line that another process is gone: one that trains, or one that reads images.

    Raises:
        ProcessLostError: it is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if is_reader_lost(error):
            raise reader_lost(error) from None
        # Which error tells of a lost process depends on the backend, and on what this one was waiting for.
        is_backends = isinstance(error, DistError) or re.search("gloo|nccl", str(error), re.I)
        if accelerator.num_processes > 1 and is_backends:
            reason = re.sub(r"^\[[^]]*\] ", "", first_line(error)).partition(". This is typically")[0]
            raise ProcessLostError(
                f"process {accelerator.process_index} lost the others ({reason}); "
                "unless one of them says why, continue with --resume"
            ) from None
        raise
