"""Several processes that train one model: DDP, or FSDP2 where a model is larger than a card."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast, broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.distributed import DistError
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from v2m.system.errors import first_line

T = TypeVar("T")


class ProcessLostError(OSError):
    """A process that this one needs is gone."""


SECONDS_TO_GIVE_WAY = 3.0

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def best_device() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


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


def local_processes() -> int:
    """Processes that train on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes and tells; known before the others are joined."""
    return os.environ.get("RANK", "0") == "0"


def give_way() -> None:
    """Let the first process of this machine tell of an error.

    If it fails by the same one, torchrun ends this process before it says that again.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(SECONDS_TO_GIVE_WAY)


def share_batch_norm(module: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Let batch norms see the batch of all processes, which PyTorch can do on GPUs."""
    if accelerator.num_processes == 1 or accelerator.device.type != "cuda":
        return module
    return nn.SyncBatchNorm.convert_sync_batchnorm(module)


def distribute(module: nn.Module, accelerator: Accelerator, fsdp: bool) -> nn.Module:
    """A module for training, in these processes and this precision, whose results are float32.

    Raises:
        ValueError: there is nothing to divide it over.
    """
    if fsdp and accelerator.num_processes == 1:
        raise ValueError(
            "fsdp: there is one process only, expected several (torchrun --nproc_per_node N ...)"
        )
    module = accelerator.prepare_model(module, evaluation_mode=True)  # device and precision only
    if fsdp:
        return shard(module)
    if accelerator.num_processes == 1:
        return module
    devices = None if accelerator.device.type == "cpu" else [accelerator.local_process_index]
    return DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True)


def shard(module: nn.Module) -> nn.Module:
    """Divide the weights of a module over the processes, block by block (FSDP2, in place)."""
    for name, part in module.named_modules():
        if re.fullmatch(r"(.*\.)?(blocks|layers)\.\d+", name):
            fully_shard(part)
    fully_shard(module)
    return module


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Have the whole weights in every process, so that each can do another number of batches."""
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    yield
    for part in parts:
        part.reshard()
        part.set_reshard_after_forward(True, recurse=False)


def share_buffers(module: nn.Module, accelerator: Accelerator) -> None:
    """Have the main process's buffers, such as batch norm's statistics of its images, in every process."""
    if accelerator.num_processes > 1:
        broadcast(list(module.buffers()))


def whole(state: Any) -> Any:
    """A state with tensors that are divided over the processes put together; every process must call it."""
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    return state.full_tensor() if isinstance(state, DTensor) else state


def load_module(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load whole tensors into a module that may be divided."""
    own = module.state_dict()
    module.load_state_dict({name: _divided(value, own.get(name)) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]]) -> None:
    """Load whole moments into an optimiser, and leave its settings."""
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {name: _divided(value, parameters[index]) for name, value in values.items()}
        for index, values in state.items()
    }
    optimizer.load_state_dict(dict(state=moments, param_groups=groups))


def _divided(value: Any, like: Any) -> Any:
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


def from_main(accelerator: Accelerator, make: Callable[[], T]) -> T:
    """What the main process makes, in every process."""
    made = [make() if accelerator.is_main_process else None]
    return broadcast_object_list(made)[0]


def is_reader_lost(error: Exception) -> bool:
    """Whether this is PyTorch's error for a process that reads images and is gone."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    return bool(re.search("DataLoader worker .*(exited|killed)", text))


def reader_lost(error: Exception) -> ProcessLostError:
    """The same in words for a user."""
    return ProcessLostError(
        f"a process that reads images was killed, often for want of memory ({first_line(error)}); "
        "try fewer --workers; what was saved is kept (v2m train goes on with --resume)"
    )


@contextmanager
def lost_processes(accelerator: Accelerator) -> Iterator[None]:
    """Say in a line that another process is gone: one that trains, or one that reads images.

    Raises:
        ProcessLostError: it is gone.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if is_reader_lost(error):
            raise reader_lost(error) from None
        if accelerator.num_processes > 1 and (
            isinstance(error, DistError) or re.search("gloo|nccl", text, re.I)
        ):
            reason = re.sub(r"^\[[^]]*\] ", "", first_line(error)).partition(". This is typically")[0]
            raise ProcessLostError(
                f"process {accelerator.process_index} lost the others ({reason}); "
                "unless one of them says why, continue with --resume"
            ) from None
        raise


def gather_items(accelerator: Accelerator, items: Sequence[T]) -> list[T]:
    """The items of all processes."""
    return list(items) if accelerator.num_processes == 1 else gather_object(list(items))
