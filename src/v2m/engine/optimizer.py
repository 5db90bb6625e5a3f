"""The optimiser and the schedule of its learning rate, both timm's."""

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from v2m.tasks.config import OptimizerConfig, ScheduleConfig


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> Optimizer:
    """An optimiser of timm for a module."""
    return create_optimizer_v2(
        module,
        opt=config.name,
        lr=config.lr,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
    )


def build_schedule(optimizer: Optimizer, config: ScheduleConfig, steps: int) -> Scheduler:
    """A schedule of timm over the steps of a run, linear at first."""
    warmup = dict(warmup_t=int(steps * config.warmup), warmup_lr_init=config.warmup_lr, t_in_epochs=False)
    if config.kind == "steps":
        milestones = [int(steps * share) + 1 for share in config.milestones]  # timm counts from 1 here
        return MultiStepLRScheduler(optimizer, milestones, decay_rate=0.1, warmup_prefix=False, **warmup)
    # The run is one cycle, so the decay of later ones is never used. With 1, timm warns of a run of one step.
    cycle = dict(lr_min=config.min_lr, cycle_decay=0.5)
    if config.kind == "poly":
        return PolyLRScheduler(optimizer, steps, power=config.power, **cycle, **warmup)
    return CosineLRScheduler(optimizer, steps, **cycle, **warmup)
