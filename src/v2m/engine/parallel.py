"""Processes that work together: how they are joined, what they share, and when one is lost."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch.distributed import DistError

from v2m.engine.device import best_device
from v2m.engine.processes import ProcessLostError, is_reader_lost, reader_lost
from v2m.system.errors import first_line

T = TypeVar("T")

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
"""accelerate's names of our precisions."""


def start(device: str = "auto", precision: str = "fp32", timeout: float = 10.0) -> Accelerator:
    """Join the processes that torchrun or accelerate started, or be the only one.

    Args:
        device: ``auto`` or ``cpu``.
        precision: One of ``PRECISIONS``.
        timeout: Minutes after which a process that does not answer counts as lost.
    """
    if not torch.distributed.is_initialized():  # what an earlier run in this process has set does not count
        AcceleratorState._reset_state(reset_partial_state=True)
    is_cpu = device == "cpu" or best_device().type == "cpu"
    patience = InitProcessGroupKwargs(timeout=timedelta(minutes=timeout))
    return Accelerator(cpu=is_cpu, mixed_precision=PRECISIONS[precision], kwargs_handlers=[patience])


def from_main(accelerator: Accelerator, make: Callable[[], T]) -> T:
    """What the main process makes, in every process."""
    made = [make() if accelerator.is_main_process else None]
    return broadcast_object_list(made)[0]


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
