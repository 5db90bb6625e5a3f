"""One model in several processes: DDP, or FSDP2 where a model is larger than a card.

With FSDP2 each process holds a shard of every tensor. A full tensor is put together from all shards, so
whatever is saved is full: a checkpoint does not depend on the processes that wrote it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel


def sync_batch_norm(module: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Let batch norms see the batch of all processes. PyTorch can do this on GPUs only."""
    if accelerator.num_processes == 1 or accelerator.device.type != "cuda":
        return module
    return nn.SyncBatchNorm.convert_sync_batchnorm(module)


def broadcast_buffers(module: nn.Module, accelerator: Accelerator) -> None:
    """Give the main process's buffers to all processes.

    Batch norms keep statistics there, and each process has seen other images.
    """
    if accelerator.num_processes > 1:
        broadcast(list(module.buffers()))


def distribute(module: nn.Module, accelerator: Accelerator, fsdp: bool) -> nn.Module:
    """A module for training, in these processes and this precision. Its results are float32.

    Raises:
        ValueError: there is only one process to shard it over.
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
    """Shard the parameters of a module over the processes, block by block. The module itself is changed."""
    # Inner blocks first: what they leave over belongs to the module around them.
    for name, part in module.named_modules():
        if re.fullmatch(r"(.*\.)?(blocks|layers)\.\d+", name):
            fully_shard(part)
    fully_shard(module)
    return module


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Keep full parameters in every process.

    A forward pass of sharded parameters waits for all processes. So without this, each process would need
    the same number of batches.
    """
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    yield
    for part in parts:
        part.reshard()
        part.set_reshard_after_forward(True, recurse=False)


def full_state(state: Any) -> Any:
    """A state (a tensor, or dictionaries and lists of them) with full tensors instead of sharded ones.

    Every process must call this.
    """
    if isinstance(state, dict):
        return {key: full_state(value) for key, value in state.items()}
    if isinstance(state, list):
        return [full_state(value) for value in state]
    return state.full_tensor() if isinstance(state, DTensor) else state


def load_module(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load full tensors into a module that may be sharded."""
    own = module.state_dict()
    module.load_state_dict({name: _sharded_like(own.get(name), value) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]]) -> None:
    """Load full moments into an optimiser that may be sharded. Its settings stay as they are."""
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {name: _sharded_like(parameters[index], value) for name, value in values.items()}
        for index, values in state.items()
    }
    optimizer.load_state_dict(dict(state=moments, param_groups=groups))


def _sharded_like(own: Any, value: Any) -> Any:
    """A full value, sharded as ``own`` is. What has another shape, such as a count of steps, stays full."""
    if isinstance(own, DTensor) and isinstance(value, Tensor) and value.shape == own.shape:
        return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
    return value
