"""What learns: the model, its moving average, the optimiser and the schedule. Nothing here knows files."""

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
from v2m.engine import parallel, sharding
from v2m.engine.device import sum_dtype
from v2m.engine.nonfinite import find_nonfinite
from v2m.engine.optimizer import build_optimizer, build_schedule
from v2m.system.errors import short
from v2m.tasks import Task

STEP_SEED = 1
"""The last part of the seed of a step.

Seeds of images are shorter. NumPy takes their missing parts for zeros, so this one must be none.
"""


class StepIndex(NamedTuple):
    """Which step it is. All random numbers of the step follow from this.

    Attributes:
        epoch: The epoch, from 1.
        step: The step in the epoch, from 0.
        global_step: The step in the run, from 0.
    """

    epoch: int
    step: int
    global_step: int


class StepResult(NamedTuple):
    """What a step gave, over all processes.

    Attributes:
        is_finite: Whether loss and gradient were finite. If not, the step was skipped.
        loss: Sum of the losses of its images.
        right: How much was right, in the unit of the task's ``train_metric``.
        counted: How much could have been right.
        images: Number of images.
        votes: For each question, how many processes voted yes.
    """

    is_finite: bool
    loss: float
    right: int
    counted: int
    images: int
    votes: list[int]


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

        # The model. What is saved has full, contiguous tensors, so a model in another form needs a twin.
        model = sharding.sync_batch_norm(task.build(pretrained), accelerator)
        self._memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        is_plain = not (config.fsdp or config.channels_last)
        self._plain_model = None if is_plain else copy.deepcopy(model)
        self._model = model.to(device).to(memory_format=self._memory_format)
        if config.grad_checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]

        # The moving average is a copy of the model, made before that is compiled and wrapped.
        average = partial(ModelEmaV3, use_warmup=True, foreach=not config.fsdp)  # buffers are not sharded
        self._ema = average(model, config.ema_decay) if config.ema_decay else None

        # What is minimised. It calls the wrapper of DDP; the module in it has the names that are saved.
        self._objective = task.build_objective(model).to(device)
        self._trained = self._objective.trainable_module
        if config.compile:
            self._trained.compile()
        self._objective.trainable_module = sharding.distribute(self._trained, accelerator, config.fsdp)
        if self._ema and config.fsdp:
            sharding.shard(self._ema.module)

        # The optimiser comes last: FSDP has replaced the parameters by sharded ones.
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

    def step(
        self, micro_batches: list[Batch], index: StepIndex, questions: Sequence[Callable[[], bool]]
    ) -> StepResult:
        """Do a step, unless loss or gradient are not finite.

        Args:
            micro_batches: This process's share of the images of the step.
            index: Which step it is.
            questions: What all processes vote on. They are asked in every process, after the gradient.
        """
        # Gradients. Batch norms see the images here, so their statistics are kept for a step that is skipped.
        buffers = [(buffer, buffer.clone()) for buffer in self._trained.buffers()]
        totals = self._backward(micro_batches, index)
        limit = self._config.optimizer.clip_grad or math.inf
        self._accelerator.unscale_gradients(self._optimizer)
        norm = sharding.full_state(nn.utils.clip_grad_norm_(self._trained.parameters(), limit))

        # Votes. One sum over the processes brings losses, counts and votes to all, so they all decide alike.
        votes = torch.tensor([ask() for ask in questions], dtype=totals.dtype, device=totals.device)
        loss, *counts = self._accelerator.reduce(torch.cat([totals, votes])).tolist()
        right, counted, images, *voted = map(int, counts)
        is_finite = math.isfinite(loss) and math.isfinite(norm.item())

        # The update, or none. The schedule goes on either way: it follows the steps, not the updates.
        if is_finite or self._accelerator.scaler:  # a scaler skips by itself, and has to lower its scale
            self._optimizer_step()
        self._optimizer.zero_grad()
        self._schedule.step_update(index.global_step + 1)
        if not is_finite:
            for buffer, before in buffers:
                buffer.copy_(before)
        elif self._ema:
            self._ema.update(self._model, step=index.global_step + 1)
        return StepResult(is_finite, loss, right, counted, images, voted)

    def _optimizer_step(self) -> None:
        """Let the optimiser do a step. The first one after a checkpoint shows whether its moments fit.

        Raises:
            ValueError: they do not fit.
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

    def _backward(self, micro_batches: list[Batch], index: StepIndex) -> Tensor:
        """Accumulate the gradients of the micro-batches.

        Returns:
            Sums over the images: of the loss, of what is right, of what could have been, and their number.
        """
        self._seed(index)
        device = self._accelerator.device
        totals = torch.zeros(4, dtype=sum_dtype(device), device=device)
        for number, batch in enumerate(micro_batches, 1):
            targets, mixed, mixed_targets = self._inputs(batch)
            # DDP averages gradients over the processes, which the last micro-batch does for all of them.
            with nullcontext() if number == len(micro_batches) else self._objective.no_sync():
                with self._accelerator.autocast():
                    result = self._objective(mixed, mixed_targets)
                self._accelerator.backward(result["loss"] / len(micro_batches))
            right, counted = self._task.count_right(result["output"], targets)
            images = len(batch.indices)
            sums = (result["loss"].detach() * images, right, counted, images)
            totals += torch.stack([torch.as_tensor(value).to(totals) for value in sums])
        return totals

    def _seed(self, index: StepIndex) -> None:
        """Seed what is random in a step: mixing of images, and depth or units that are dropped."""
        # Each process draws for its own images, so its rank is a part of the seed.
        seed_everything(
            self._config.seed, index.epoch, index.step, self._accelerator.process_index, STEP_SEED
        )
        if self._accelerator.device.type != "cpu":
            torch.manual_seed(torch.initial_seed())

    def _inputs(self, batch: Batch) -> tuple[Any, Any, Any]:
        """Targets, mixed images and mixed targets, on the device."""
        inputs = (batch.images, batch.targets)
        images, targets = send_to_device(inputs, self._accelerator.device, non_blocking=True)
        if isinstance(images, Tensor):
            images = images.contiguous(memory_format=self._memory_format)
        return targets, *self._task.mix(images, targets)

    def find_nonfinite(self, micro_batches: list[Batch], index: StepIndex) -> str:
        """Repeat a step that was not finite, in all processes, and name where that began."""

        def repeat(model: nn.Module) -> Tensor:
            self._seed(index)
            *_, images, targets = self._inputs(batch)
            self._objective.trainable_module = model
            with self._accelerator.autocast():
                return self._objective(images, targets)["loss"]

        found = []
        for batch in micro_batches:  # noqa: B007 - it is what is repeated
            found.append(find_nonfinite(repeat, self._objective.trainable_module))
        found = parallel.gather_items(self._accelerator, found)
        return next((where for where in found if not where.startswith("nowhere")), found[0])

    def state(self) -> dict[str, Any]:
        """What resuming needs, as full tensors and plain data. Every process must call this."""
        scaler = self._accelerator.scaler
        return dict(
            model=sharding.full_state(self._trained.state_dict()),
            ema=sharding.full_state(self._ema.module.state_dict()) if self._ema else None,
            optimizer=sharding.full_state(self._optimizer.state_dict()["state"]),
            scaler=scaler.state_dict() if scaler else None,
        )

    def load(self, state: dict[str, Any], steps_done: int) -> None:
        """Go on from a state that ``state`` gave, after so many steps. Settings stay those of now.

        Raises:
            ValueError: it is of another model, optimiser or precision.
        """
        try:
            sharding.load_module(self._trained, state["model"])
            if self._ema:
                sharding.load_module(self._ema.module, state["ema"])
            sharding.load_optimizer(self._optimizer, state["optimizer"])
            if self._accelerator.scaler:
                self._accelerator.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(short(error)) from None
        self._has_stepped = False
        self._schedule.step_update(steps_done)

    def plain_model(self) -> nn.Module:
        """What is evaluated, with full and contiguous tensors, to save it. Every process must call this."""
        if self._plain_model is None:
            return self.model
        self._plain_model.load_state_dict(sharding.full_state(self.model.state_dict()))
        return self._plain_model
