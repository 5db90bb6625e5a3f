"""What learns: a model, its moving average, the task, the optimiser and the schedule."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from timm.data import Mixup
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from v2m.data import ImageSpec
from v2m.data.loading import Batch, seed_everything
from v2m.engine import parallel
from v2m.engine.config import TrainConfig
from v2m.engine.finite import find_nonfinite
from v2m.engine.resolve import build_optimizer
from v2m.tasks.classification.head import build_model
from v2m.tasks.classification.loss import build_task

STEP = 1
"""The last part of the seed of a step; seeds of images have none."""


class Place(NamedTuple):
    """A step: its epoch, its number in the epoch from 0, and its number in the run from 0."""

    epoch: int
    step: int
    total: int


class StepResult(NamedTuple):
    """What a step gave, over all processes.

    Attributes:
        is_finite: Whether loss and gradient were finite; otherwise the step was skipped.
        loss: Sum of the losses of its images.
        correct: Images that were classified correctly.
        images: Images.
        answers: How many processes said yes to each question.
    """

    is_finite: bool
    loss: float
    correct: int
    images: int
    answers: list[int]


class Learner:
    """Everything that has weights or moments, in one of the processes that train.

    Args:
        config: The run, resolved.
        accelerator: The processes.
        classes: Names of the classes.
        spec: The images.
        mixup: How images are mixed, if they are.
        steps: Steps of the run.
        pretrained: Weights to start from.

    Raises:
        ValueError: a setting cannot be used.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        classes: list[str],
        spec: ImageSpec,
        mixup: Mixup | None,
        steps: int,
        pretrained: str | None,
    ) -> None:
        self._config, self._accelerator, self._mixup = config, accelerator, mixup
        device = accelerator.device
        model = build_model(config.model, config.model_args, len(classes), spec, pretrained)
        self._memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        is_plain = not (config.fsdp or config.channels_last)
        self._plain_model = None if is_plain else copy.deepcopy(model)  # to save: undivided, contiguous
        self._model = model.to(device).to(memory_format=self._memory_format)
        if config.grad_checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        self._ema = ModelEmaV3(model, config.ema_decay, use_warmup=True) if config.ema_decay else None
        self._task = build_task(model, config.loss, config.distill, mixup, spec, classes).to(device)
        self._trained = self._task.trainable_module
        if config.compile:
            self._trained.compile()
        self._task.trainable_module = parallel.distribute(self._trained, accelerator, config.fsdp)
        if self._ema and config.fsdp:
            parallel.shard(self._ema.module)
        optimizer = build_optimizer(self._trained, config.optimizer)
        self._optimizer = accelerator.prepare(optimizer)
        self._schedule = CosineLRScheduler(
            optimizer,
            t_initial=steps,
            lr_min=config.schedule.min_lr,
            warmup_t=int(steps * config.schedule.warmup),
            warmup_lr_init=config.schedule.warmup_lr,
            t_in_epochs=False,
        )

    @property
    def model(self) -> nn.Module:
        """What is evaluated: the moving average, or the model where there is none."""
        return self._ema.module if self._ema else self._model

    @property
    def lr(self) -> float:
        """The learning rate; that of the head where the blocks have lower ones."""
        return max(group["lr"] for group in self._optimizer.param_groups)

    def train(self) -> None:
        """Go to training mode."""
        self._task.train()

    def step(self, parts: list[Batch], place: Place, questions: Sequence[Callable[[], bool]]) -> StepResult:
        """Train on the parts of a step, unless loss or gradient are not finite.

        Args:
            parts: This process's share of the images.
            place: Where the step is, from which its random numbers follow.
            questions: Asked after the gradient, in every process.
        """
        totals = self._backward(parts, place)
        limit = self._config.optimizer.clip_grad or math.inf
        self._accelerator.unscale_gradients(self._optimizer)
        norm = parallel.whole(nn.utils.clip_grad_norm_(self._trained.parameters(), limit))
        asked = torch.tensor([ask() for ask in questions], dtype=totals.dtype, device=totals.device)
        loss, *counts = self._accelerator.reduce(torch.cat([totals, asked])).tolist()
        correct, images, *answers = map(int, counts)
        is_finite = math.isfinite(loss) and math.isfinite(norm.item())
        if is_finite or self._accelerator.scaler:  # which skips the step itself, and lowers the scale
            self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step_update(place.total + 1)
        if is_finite and self._ema:
            self._ema.update(self._model, step=place.total + 1)
        return StepResult(is_finite, loss, correct, images, answers)

    def _backward(self, parts: list[Batch], place: Place) -> Tensor:
        """Add up the gradients of the parts; returns sum of losses, correct images and images."""
        self._seed(place)
        totals = torch.zeros(3, dtype=torch.float64, device=self._accelerator.device)
        for number, batch in enumerate(parts, 1):
            images, targets, mixed, soft_targets = self._inputs(batch)
            with nullcontext() if number == len(parts) else self._task.no_sync():
                with self._accelerator.autocast():
                    result = self._task(mixed, soft_targets)
                self._accelerator.backward(result["loss"] / len(parts))
            totals[0] += result["loss"].detach() * len(images)
            totals[1] += (result["output"].argmax(-1) == targets).sum()
            totals[2] += len(images)
        return totals

    def _seed(self, place: Place) -> None:
        """Seed what is random in a step: mixing of images, and depth or units that are dropped."""
        seed_everything(self._config.seed, place.epoch, place.step, self._accelerator.process_index, STEP)
        if self._accelerator.device.type != "cpu":
            torch.manual_seed(torch.initial_seed())

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images and targets on the device, as they are and mixed."""
        device = self._accelerator.device
        images = batch.images.to(device, non_blocking=True, memory_format=self._memory_format)
        targets = batch.targets.to(device, non_blocking=True)
        return images, targets, *(self._mixup(images, targets) if self._mixup else (images, targets))

    def find_nonfinite(self, parts: list[Batch], place: Place) -> str:
        """Repeat a step that was not finite, in all processes, and name where that began."""

        def repeat(model: nn.Module) -> Tensor:
            self._seed(place)
            *_, images, targets = self._inputs(batch)
            self._task.trainable_module = model
            with self._accelerator.autocast():
                return self._task(images, targets)["loss"]

        found = []
        for batch in parts:  # noqa: B007 - it is what is repeated
            found.append(find_nonfinite(repeat, self._task.trainable_module))
        found = parallel.gather_items(self._accelerator, found)
        return next((where for where in found if not where.startswith("nowhere")), found[0])

    def state(self) -> dict[str, Any]:
        """What resuming needs, whole, as tensors and plain data; every process must call it."""
        scaler = self._accelerator.scaler
        return dict(
            model=parallel.whole(self._trained.state_dict()),
            ema=parallel.whole(self._ema.module.state_dict()) if self._ema else None,
            optimizer=parallel.whole(self._optimizer.state_dict()["state"]),
            scaler=scaler.state_dict() if scaler else None,
        )

    def load(self, state: dict[str, Any], total: int) -> None:
        """Go on from a state of ``state`` after ``total`` steps; the settings stay those of now.

        Raises:
            ValueError: it is of another model, optimiser or precision.
        """
        try:
            parallel.load_module(self._trained, state["model"])
            if self._ema:
                parallel.load_module(self._ema.module, state["ema"])
            parallel.load_optimizer(self._optimizer, state["optimizer"])
            if self._accelerator.scaler:
                self._accelerator.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(" ".join(str(error).split())[:300]) from None
        self._schedule.step_update(total)

    def plain_model(self) -> nn.Module:
        """What is evaluated, to save it: undivided and contiguous; every process must call it."""
        if self._plain_model is None:
            return self.model
        self._plain_model.load_state_dict(parallel.whole(self.model.state_dict()))
        return self._plain_model
