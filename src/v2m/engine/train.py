"""The training loop: accelerate around timm's parts."""

import math
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from rich.console import Console
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from v2m.data import DATASETS
from v2m.engine.config import TrainConfig
from v2m.engine.evaluate import collect_logits
from v2m.engine.progress import TrainProgress
from v2m.engine.run import Metrics, RunFolder
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.classification.data import (
    open_train_data,
    open_val_data,
    resolve_augment,
    resolve_image_spec,
    train_loader,
    val_loader,
)
from v2m.tasks.classification.head import build_model, model_defaults
from v2m.tasks.classification.loss import build_loss, build_mixup
from v2m.tasks.classification.metrics import Scores, score

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Training stopped on request, with everything saved."""


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or NaN; what was saved before is kept."""


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a finished run: its folder, and the last evaluation."""

    run: RunFolder
    scores: Scores
    logits: Tensor
    targets: Tensor


def train(
    config: TrainConfig,
    console: Console,
    resume: bool = False,
    on_epoch: Callable[[RunFolder], None] = lambda run: None,
) -> TrainResult:
    """Train a classifier and keep everything in its run folder.

    The moving average of the weights is evaluated after every epoch, and saved whatever its score: no weights
    are chosen by looking at the validation images, so the last score is an honest one.

    Args:
        config: The run.
        console: Where progress goes.
        resume: Continue in ``config.output`` from what was saved last.
        on_epoch: Called with the run folder after each epoch.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the run can be resumed.
        NonFiniteLossError: the loss is NaN or infinite.
        ValueError: a setting or the data cannot be used.
        OSError: something could not be read or written.
    """
    trainer = _Trainer(config, console)
    if resume:
        trainer.restore()
    else:
        trainer.run.create()
    trainer.run.write_config(trainer.config)
    return trainer.fit(on_epoch)


class _Trainer:
    def __init__(self, config: TrainConfig, console: Console) -> None:
        set_seed(config.seed)
        self.console = console
        self.config = config = resolve(config)
        self.spec = resolve_image_spec(config.input, config.data, model_defaults(config.model))
        self.run = RunFolder(config.output or "")

        data_dir = Path(config.data_dir)
        train_data = open_train_data(config.data, data_dir, self.spec, config.augment)
        self.classes: list[str] = list(train_data.classes)
        val_data = open_val_data(config.data, data_dir, self.spec, self.classes)

        self.accelerator = Accelerator(
            cpu=config.device == "cpu",
            mixed_precision=PRECISIONS[config.precision],
            dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
        )
        model = build_model(config.model, config.model_args, len(self.classes), self.spec)
        if config.optimizer.name not in list_optimizers():
            nearest = get_close_matches(config.optimizer.name, list_optimizers(), n=3) or ["adamw"]
            raise ValueError(
                f"optimizer.name: {config.optimizer.name!r} is no optimiser, nearest: {', '.join(nearest)}"
            )
        self.mixup = build_mixup(config.loss, config.augment, len(self.classes))
        self.loss = build_loss(config.loss, self.mixup)
        optimizer = create_optimizer_v2(
            model,
            opt=config.optimizer.name,
            lr=config.optimizer.lr,
            weight_decay=config.optimizer.weight_decay,
            layer_decay=config.optimizer.layer_decay,
        )
        self.model, self.optimizer, self.train_batches, self.val_batches = self.accelerator.prepare(
            model,
            optimizer,
            train_loader(train_data, config.batch_size, config.workers),
            val_loader(val_data, 4 * config.batch_size, config.workers),
        )
        self.ema = (
            ModelEmaV3(self._bare_model, config.ema_decay, use_warmup=True) if config.ema_decay else None
        )
        self.steps = len(self.train_batches)
        total = config.epochs * self.steps
        self.schedule = CosineLRScheduler(
            optimizer,
            t_initial=total,
            lr_min=config.schedule.min_lr,
            warmup_t=int(total * config.schedule.warmup),
            warmup_lr_init=config.schedule.warmup_lr,
            t_in_epochs=False,
        )
        self.epoch, self.step = 1, 0  # the epoch being trained, and its steps that are done
        self.sums = _Sums()
        self.history: list[Metrics] = []

    @property
    def _bare_model(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model)

    @property
    def _eval_model(self) -> nn.Module:
        return self.ema.module if self.ema else self._bare_model

    def fit(self, on_epoch: Callable[[RunFolder], None]) -> TrainResult:
        done = (self.epoch - 1) * self.steps + self.step
        result = None
        with (
            stop_requests() as stop_requested,
            TrainProgress(self.console, self.config.epochs, self.steps, done) as progress,
        ):
            while self.epoch <= self.config.epochs:
                lr = self._train_epoch(progress, stop_requested)
                result = self._evaluate()
                row = dict(
                    epoch=self.epoch,
                    lr=lr,
                    train_loss=self.sums.loss / self.sums.images,
                    train_top1=self.sums.correct / self.sums.images,
                    val_loss=result.scores.loss,
                    val_top1=result.scores.top1,
                    val_top5=result.scores.top5,
                    images_per_s=self.sums.images * self.accelerator.num_processes / self.sums.seconds,
                    seconds=self.sums.seconds,
                )
                self.history.append(row)
                self.epoch, self.step, self.sums = self.epoch + 1, 0, _Sums()
                self._save()
                if self.accelerator.is_main_process:
                    progress.epoch(row)
                    on_epoch(self.run)
        return result or self._evaluate()

    def _train_epoch(self, progress: TrainProgress, stop_requested: Callable[[], bool]) -> float:
        """Train to the end of the epoch; returns the last learning rate."""
        set_seed(self.config.seed + self.epoch, device_specific=True)
        self.train_batches.set_epoch(self.epoch)
        batches = self.accelerator.skip_first_batches(self.train_batches, self.step)
        self.model.train()
        last = time.monotonic()
        for inputs, targets in batches:
            mixed, soft_targets = self.mixup(inputs, targets) if self.mixup else (inputs, targets)
            with self.accelerator.autocast():
                logits = self.model(mixed)
                loss = self.loss(logits.float(), soft_targets)
            value = loss.item()
            self._check_finite(value)
            self._update(loss)
            self.step += 1

            sums, now = self.sums, time.monotonic()
            sums.images += len(inputs)
            sums.correct += int((logits.argmax(-1) == targets).sum())
            sums.loss += value * len(inputs)
            sums.seconds, last = sums.seconds + now - last, now
            rate = sums.images * self.accelerator.num_processes / sums.seconds
            progress.step(self.epoch, self.step, rate, sums.loss / sums.images, sums.correct / sums.images)
            if stop_requested():
                self._save()
                raise Interrupted(
                    f"stopped and saved in epoch {self.epoch}, step {self.step} of {self.steps}; "
                    f"continue with: v2m train --resume {shlex.quote(str(self.run.path))}"
                )
        return self.optimizer.param_groups[0]["lr"]

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.config.optimizer.clip_grad:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_grad)
        self.optimizer.step()
        updates = (self.epoch - 1) * self.steps + self.step + 1
        self.schedule.step_update(updates)
        if self.ema:
            self.ema.update(self._bare_model, step=updates)

    def _check_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        kept = (
            f"{self.run.path} keeps the weights of epoch {self.epoch - 1}"
            if self.history
            else "nothing was saved"
        )
        raise NonFiniteLossError(
            f"the loss is {loss} in epoch {self.epoch}, step {self.step + 1} "
            f"(learning rate {self.optimizer.param_groups[0]['lr']:.2g}); {kept}. "
            "Try a lower --optimizer.lr or --optimizer.clip_grad"
        )

    def _evaluate(self) -> TrainResult:
        pairs = [
            self.accelerator.gather_for_metrics(pair)
            for pair in collect_logits(
                self._eval_model, self.val_batches, self.accelerator.device, self.accelerator.autocast
            )
        ]
        logits, targets = (torch.cat(parts).cpu() for parts in zip(*pairs, strict=True))
        return TrainResult(self.run, score(logits, targets, self.classes), logits, targets)

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        self.run.write_state(
            dict(
                epoch=self.epoch,
                step=self.step,
                steps=self.steps,
                sums=asdict(self.sums),
                history=self.history,
                model=self._bare_model.state_dict(),
                ema=self.ema.module.state_dict() if self.ema else None,
                optimizer=self.optimizer.state_dict(),
            )
        )
        self.run.write_model(self._eval_model, self.classes, self.spec)
        self.run.write_metrics(self.history)

    def restore(self) -> None:
        """Go on from what was saved last; settings that changed since then count."""
        state = self.run.read_state()
        try:
            self._bare_model.load_state_dict(state["model"])
            if self.ema:
                self.ema.module.load_state_dict(state["ema"])
            settings = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict(state["optimizer"] | dict(param_groups=settings))
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"resume: {self.run.state} does not fit this configuration ({reason})") from None
        self.epoch, self.history = state["epoch"], state["history"]
        if state["steps"] == self.steps:
            self.step, self.sums = state["step"], _Sums(**state["sums"])
        elif state["step"]:
            self.console.print(
                f"epoch {self.epoch} starts again: it has {self.steps} steps now, not {state['steps']}"
            )
        self.schedule.step_update((self.epoch - 1) * self.steps + self.step)
        if self.epoch > self.config.epochs:
            self.console.print(f"nothing left to train: {len(self.history)} epochs are done")


@dataclass
class _Sums:
    """What the steps of an epoch add up to, in this process."""

    images: int = 0
    correct: int = 0
    loss: float = 0.0
    seconds: float = 0.0


def resolve(config: TrainConfig) -> TrainConfig:
    """The configuration with nothing left open, and folders of data by their whole path.

    Raises:
        ValueError: there is no such model, or it takes no such images.
    """
    data = Path(config.data)
    spec = resolve_image_spec(config.input, config.data, model_defaults(config.model))
    return replace(
        config,
        data=str(data.resolve()) if data.is_dir() and config.data not in DATASETS else config.data,
        output=config.output or _new_folder(f"{data.resolve().name}-{config.model.replace('/', '_')}"),
        augment=resolve_augment(config.augment, config.data),
        input=InputConfig(spec.img_size, spec.in_chans, spec.mean, spec.std, spec.crop_pct),
    )


def _new_folder(name: str) -> str:
    """A folder in runs/ that is not there yet, named by the time, and by a number where that is taken."""
    path = str(Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    candidates = chain([path], (f"{path}-{number}" for number in count(2)))
    return next(candidate for candidate in candidates if not Path(candidate).exists())


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; a second Ctrl-C stops at once."""
    requested = False

    def request(number: int, frame: Any) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
