"""What learns: a model, its moving average, the task, the optimiser and the schedule."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from v2m.data.loading import Batch, seed_everything
from v2m.engine import parallel
from v2m.engine.finite import find_nonfinite
from v2m.engine.resolve import build_optimizer, build_schedule
from v2m.system.errors import short
from v2m.tasks import Task

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
        right: How much of them was right, in the unit of the task's ``train_metric``.
        counted: Of how much.
        images: Images.
        answers: How many processes said yes to each question.
    """

    is_finite: bool
    loss: float
    right: int
    counted: int
    images: int
    answers: list[int]


class Learner:
    """Everything that has weights or moments, in one of the processes that train.

    Args:
        task: The task with its data, and the configuration of the run.
        accelerator: The processes.
        steps: Steps of the run.
        pretrained: Weights to start from.

    Raises:
        ValueError: a setting cannot be used.
    """

    def __init__(
        self,
        task: Task[Any],
        accelerator: Accelerator,
        steps: int,
        pretrained: str | None,
    ) -> None:
        self._task, self._config, self._accelerator = task, task.config, accelerator
        config, device = task.config, accelerator.device
        model = parallel.share_batch_norm(task.build(pretrained), accelerator)
        self._memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        is_plain = not (config.fsdp or config.channels_last)
        self._plain_model = None if is_plain else copy.deepcopy(model)  # to save: undivided, contiguous
        self._model = model.to(device).to(memory_format=self._memory_format)
        if config.grad_checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        average = partial(ModelEmaV3, use_warmup=True, foreach=not config.fsdp)  # buffers are not divided
        self._ema = average(model, config.ema_decay) if config.ema_decay else None
        self._objective = task.build_objective(model).to(device)
        self._trained = self._objective.trainable_module
        if config.compile:
            self._trained.compile()
        self._objective.trainable_module = parallel.distribute(self._trained, accelerator, config.fsdp)
        if self._ema and config.fsdp:
            parallel.shard(self._ema.module)
        optimizer = build_optimizer(self._trained, config.optimizer)
        self._optimizer = accelerator.prepare(optimizer)
        self._schedule = build_schedule(optimizer, config.schedule, steps)
        self._has_stepped = True  # since a state was loaded

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
        self._objective.train()

    def step(self, parts: list[Batch], place: Place, questions: Sequence[Callable[[], bool]]) -> StepResult:
        """Train on the parts of a step, unless loss or gradient are not finite.

        Args:
            parts: This process's share of the images.
            place: Where the step is, from which its random numbers follow.
            questions: Asked after the gradient, in every process.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self._trained.buffers()]
        totals = self._backward(parts, place)
        limit = self._config.optimizer.clip_grad or math.inf
        self._accelerator.unscale_gradients(self._optimizer)
        norm = parallel.whole(nn.utils.clip_grad_norm_(self._trained.parameters(), limit))
        asked = torch.tensor([ask() for ask in questions], dtype=totals.dtype, device=totals.device)
        loss, *counts = self._accelerator.reduce(torch.cat([totals, asked])).tolist()
        right, counted, images, *answers = map(int, counts)
        is_finite = math.isfinite(loss) and math.isfinite(norm.item())
        if is_finite or self._accelerator.scaler:  # which skips the step itself, and lowers the scale
            self._optimizer_step()
        self._optimizer.zero_grad()
        self._schedule.step_update(place.total + 1)
        if not is_finite:  # batch norms have seen it
            for buffer, before in buffers:
                buffer.copy_(before)
        elif self._ema:
            self._ema.update(self._model, step=place.total + 1)
        return StepResult(is_finite, loss, right, counted, images, answers)

    def _optimizer_step(self) -> None:
        """Let the optimiser do a step; the first one after a checkpoint shows whether its moments fit.

        Raises:
            ValueError: they do not.
        """
        try:
            self._optimizer.step()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, LookupError, TypeError, AttributeError) as error:
            if self._has_stepped:
                raise
            raise ValueError(f"resume: the moments of the optimiser do not fit ({short(error)})") from None
        self._has_stepped = True

    def _backward(self, parts: list[Batch], place: Place) -> Tensor:
        """Add up the gradients of the parts; returns sums of loss, what is right, what counts, and images."""
        self._seed(place)
        totals = torch.zeros(4, dtype=torch.float64, device=self._accelerator.device)
        for number, batch in enumerate(parts, 1):
            targets, mixed, mixed_targets = self._inputs(batch)
            with nullcontext() if number == len(parts) else self._objective.no_sync():
                with self._accelerator.autocast():
                    result = self._objective(mixed, mixed_targets)
                self._accelerator.backward(result["loss"] / len(parts))
            right, counted = self._task.count_right(result["output"], targets)
            images = len(batch.indices)
            sums = (result["loss"].detach() * images, right, counted, images)
            totals += torch.stack([torch.as_tensor(value).to(totals) for value in sums])
        return totals

    def _seed(self, place: Place) -> None:
        """Seed what is random in a step: mixing of images, and depth or units that are dropped."""
        seed_everything(self._config.seed, place.epoch, place.step, self._accelerator.process_index, STEP)
        if self._accelerator.device.type != "cpu":
            torch.manual_seed(torch.initial_seed())

    def _inputs(self, batch: Batch) -> tuple[Any, Any, Any]:
        """Targets on the device, and images and targets that are mixed."""
        inputs = (batch.images, batch.targets)
        images, targets = send_to_device(inputs, self._accelerator.device, non_blocking=True)
        if isinstance(images, Tensor):
            images = images.contiguous(memory_format=self._memory_format)
        return targets, *self._task.mix(images, targets)

    def find_nonfinite(self, parts: list[Batch], place: Place) -> str:
        """Repeat a step that was not finite, in all processes, and name where that began."""

        def repeat(model: nn.Module) -> Tensor:
            self._seed(place)
            *_, images, targets = self._inputs(batch)
            self._objective.trainable_module = model
            with self._accelerator.autocast():
                return self._objective(images, targets)["loss"]

        found = []
        for batch in parts:  # noqa: B007 - it is what is repeated
            found.append(find_nonfinite(repeat, self._objective.trainable_module))
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
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(short(error)) from None
        self._has_stepped = False
        self._schedule.step_update(total)

    def plain_model(self) -> nn.Module:
        """What is evaluated, to save it: undivided and contiguous; every process must call it."""
        if self._plain_model is None:
            return self.model
        self._plain_model.load_state_dict(parallel.whole(self.model.state_dict()))
        return self._plain_model
