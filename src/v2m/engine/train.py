"""The training loop: timm's tasks in accelerate's processes."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console

from v2m.data.loading import Batch, EvalLoader, TrainLoader, Unreadable
from v2m.engine import parallel
from v2m.engine.checkpoint import read_checkpoint
from v2m.engine.evaluate import Evaluation, evaluate
from v2m.engine.learner import Learner, Place, StepResult
from v2m.engine.memory import memory_mb
from v2m.engine.progress import StepStatus, TrainProgress, print_line
from v2m.engine.resolve import resolve
from v2m.engine.run import Metrics, RunFolder
from v2m.engine.stopping import Interrupted, stop_requests
from v2m.engine.trackers import Trackers
from v2m.system.errors import DataError, few, same_name
from v2m.system.names import shell_word
from v2m.tasks import Task, find_task
from v2m.tasks.config import TrainConfig, settings
from v2m.tasks.evaluation import is_finite

STEPS_BETWEEN_LOGS = 20
LESS = "Try a lower --optimizer.lr or --optimizer.clip_grad"


class NonFiniteLossError(ArithmeticError):
    """Losses or gradients stayed infinite or NaN; what was saved before is kept."""


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a finished run.

    Attributes:
        run: Its folder.
        evaluation: The last evaluation.
        task: Its task, with the data.
        is_main: Whether this process is the one that writes and tells.
    """

    run: RunFolder
    evaluation: Evaluation
    task: Task[Any]
    is_main: bool


def train(
    config: TrainConfig,
    console: Console,
    resume: bool = False,
    on_epoch: Callable[[RunFolder], None] = lambda run: None,
) -> TrainResult:
    """Train a model and keep everything in its run folder.

    In several processes (torchrun) each calls this; the main one writes. The moving average of the weights
    is evaluated after every epoch, and saved whatever its score: the last score is of weights that were
    not chosen by looking at the validation images.

    Args:
        config: The run.
        console: Where progress goes.
        resume: Continue in ``config.output`` from what was saved last.
        on_epoch: Called with the run folder after each epoch, by the main process.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the run can be resumed.
        NonFiniteLossError: losses or gradients stayed NaN or infinite.
        ValueError: a setting or the data cannot be used.
        OSError: something could not be read or written, or another process is gone.
    """
    accelerator = parallel.start(config.device, config.precision, config.timeout)
    with parallel.lost_processes(accelerator), ExitStack() as held:
        trainer = _Trainer(config, console, accelerator, resume, held)
        result = trainer.fit(on_epoch)
        accelerator.end_training()
    return result


class _Trainer:
    def __init__(
        self,
        config: TrainConfig,
        console: Console,
        accelerator: Accelerator,
        resume: bool,
        held: ExitStack,
    ) -> None:
        self.accelerator, self.is_main = accelerator, accelerator.is_main_process
        self.console = console if self.is_main else Console(quiet=True)
        config, resume = parallel.from_main(accelerator, lambda: (_resolved(config, resume), resume))
        self.config = config
        self.task: Task[Any] = find_task(config.task)(config)
        self.run = RunFolder(config.output or "")
        set_seed(config.seed)
        self._open_data()
        steps = config.epochs * self.steps
        self.learner = Learner(self.task, accelerator, steps, None if resume else config.pretrained)
        self.epoch, self.step = 1, 0  # the epoch being trained, and its steps that are done
        self.sums, self.skipped_in_row = _Sums(), 0
        self.history: list[Metrics] = []
        self.unreadable: list[tuple[str, Unreadable]] = []  # since the last save, by split
        if self.is_main and not resume:
            self.run.create()
        if self.is_main and self.run.path.is_dir():
            held.enter_context(self.run.locked())
        if resume:
            self._restore()
        if self.is_main:
            self.run.write_config(config)
        self.saved_at = time.monotonic()

    def _open_data(self) -> None:
        config, task = self.config, self.task
        with self.accelerator.local_main_process_first():  # which may have to download
            task.open_data(self._warn)
        share: dict[str, Any] = dict(
            workers=config.workers,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        self.train_batches = TrainLoader(
            task.train_data,
            config.batch_size,
            accumulate=config.accumulate,
            even=task.needs_even_parts,
            repeats=task.repeats,
            seed=config.seed,
            collate=task.collate,
            **share,
        )
        self.images, self.steps = len(task.train_data), self.train_batches.steps
        part = self.train_batches.batch_size // self.accelerator.num_processes // config.accumulate
        self.val_batches = EvalLoader(
            task.val_data, task.eval_parts * part, collate=task.evaluator.collate, **share
        )

    @property
    def _steps_done(self) -> int:
        return (self.epoch - 1) * self.steps + self.step

    def fit(self, on_epoch: Callable[[RunFolder], None]) -> TrainResult:
        """Train what is left."""
        evaluation = None
        progress = TrainProgress(
            self.console,
            self.config.epochs,
            self.steps,
            self._steps_done,
            self.config.workers,
            parallel.local_processes(),
            self.task.train_metric,
            self.task.val_metrics,
        )
        trackers = Trackers(
            self.config.trackers, self.run.path, settings(self.config), self._steps_done, self.console
        )
        with stop_requests() as stop_requested, progress, trackers:
            while self.epoch <= self.config.epochs:
                self._train_epoch(progress, trackers, stop_requested)
                evaluation = self._evaluate()
                row, is_saved = self._end_epoch(evaluation)
                trackers.log({f"epoch/{name}": value for name, value in row.items()}, self._steps_done)
                if self.is_main:
                    progress.epoch(row)
                    if is_saved:
                        on_epoch(self.run)
                if not is_saved and self.epoch > self.config.epochs:
                    name, value = next(
                        item for item in evaluation.scores.metrics.items() if not math.isfinite(item[1])
                    )
                    raise NonFiniteLossError(
                        f"{name} on the validation images is {value} after the last epoch; "
                        f"kept: {self._kept}. {LESS}"
                    )
            if evaluation is None:  # all epochs were done, but files may have been lost since then
                evaluation = self._evaluate()
                self._save(evaluation)
        return TrainResult(self.run, evaluation, self.task, self.is_main)

    def _end_epoch(self, evaluation: Evaluation) -> tuple[Metrics, bool]:
        """The metrics of the epoch that was trained, and whether it could be saved."""
        sums, scores = self.sums, evaluation.scores
        self._list_unreadable()
        row = dict(epoch=self.epoch, lr=self.learner.lr, train_loss=sums.loss / sums.images)
        if self.task.train_metric:
            row[f"train_{self.task.train_metric.key}"] = sums.right / max(sums.counted, 1)
        row |= {f"val_{name}": value for name, value in scores.metrics.items()}
        row |= dict(
            val_images=scores.images,
            images_per_s=sums.images / sums.seconds,
            seconds=sums.seconds,
            data_wait=sums.waited / sums.seconds,
            skipped=sums.skipped,
            unreadable=len(self.run.read_unreadable()),
        )
        score = next(name for key, _ in self.task.val_metrics if (name := f"val_{key}") in row)
        is_best = all(row[score] > before.get(score, -math.inf) for before in self.history)
        self.history.append(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, _Sums()
        return row, self._save(evaluation, is_best)

    def _train_epoch(
        self, progress: TrainProgress, trackers: Trackers, stop_requested: Callable[[], bool]
    ) -> None:
        self.learner.train()
        last = time.monotonic()
        for parts in self.train_batches.epoch(self.epoch, self.step):
            waited = time.monotonic() - last
            lr = self.learner.lr
            is_stopped, is_due = self._train_step(parts, stop_requested, self._is_late)
            self.step += 1
            now = time.monotonic()
            self.sums.seconds += now - last
            self.sums.waited += waited
            last = now
            status = self._status(lr)
            progress.step(status)
            if self._steps_done % STEPS_BETWEEN_LOGS == 0:
                trackers.log({f"step/{name}": v for name, v in asdict(status).items()}, self._steps_done)
            if is_stopped or is_due:
                self._list_unreadable()
                saved = "and saved" if self._save() else "without saving, since steps are being skipped,"
            if is_stopped:
                self.accelerator.wait_for_everyone()  # a launcher may end all as soon as the first one ends
                raise Interrupted(
                    f"stopped {saved} in epoch {self.epoch}, step {self.step} of {self.steps}; "
                    f"continue with: v2m train --resume {shell_word(str(self.run.path))}"
                )

    def _is_late(self) -> bool:
        return self.is_main and time.monotonic() - self.saved_at > 60 * self.config.checkpoint.minutes

    def _train_step(self, parts: list[Batch], *questions: Callable[[], bool]) -> list[bool]:
        """Train on the parts of a step; returns whether any process says yes to each of the questions."""
        self.unreadable += [("train", item) for batch in parts for item in batch.unreadable]
        place = Place(self.epoch, self.step, self._steps_done)
        result = self.learner.step(parts, place, questions)
        if result.is_finite:
            self.sums.add(result)
            self.skipped_in_row = 0
        else:
            self.sums.skipped += 1
            self.skipped_in_row += 1
        has_trained = self.sums.images or self.step + 1 < self.steps
        if self.skipped_in_row > self.config.skip_limit or not has_trained:
            raise NonFiniteLossError(
                f"loss or gradient was NaN or infinite in {self.skipped_in_row} steps in a row, until epoch "
                f"{self.epoch}, step {self.step + 1} (learning rate {self.learner.lr:.2g}); "
                f"where it began: {self.learner.find_nonfinite(parts, place)}; kept: {self._kept}. {LESS}"
            )
        return [number > 0 for number in result.answers]

    @property
    def _kept(self) -> str:
        return str(self.run.path) if self.run.has_checkpoint else "nothing"

    def _evaluate(self) -> Evaluation:
        parallel.share_buffers(self.learner.model, self.accelerator)  # for the scores of what is saved
        with parallel.gathered(self.learner.model):
            results = self.task.evaluator.results(self.task.val_data)
            found = evaluate(self.learner.model, self.val_batches, results, self.accelerator)
        self.unreadable += [("val", item) for item in found.unreadable if self.is_main]
        return found

    def _status(self, lr: float) -> StepStatus:
        sums = self.sums
        return StepStatus(
            self.epoch,
            self.step,
            sums.images / sums.seconds,
            sums.loss / max(sums.images, 1),
            sums.right / sums.counted if sums.counted else None,
            lr,
            memory_mb(self.accelerator.device),
            sums.waited / sums.seconds,
            sums.skipped,
        )

    def _list_unreadable(self) -> None:
        found = parallel.gather_items(self.accelerator, self.unreadable)
        self.unreadable = []
        if self.is_main:
            self.run.write_unreadable([(split, *item) for split, item in found])

    def _save(self, evaluation: Evaluation | None = None, is_best: bool = False) -> bool:
        """Save everything; the checkpoint last, since it commits to it.

        Weights that give no finite loss are not saved. Without an evaluation, skipped steps tell.
        """
        self.saved_at = time.monotonic()
        if not is_finite(evaluation.scores) if evaluation else self.skipped_in_row:
            return False
        learnt, save = self.learner.state(), partial(self.task.save, self.learner.plain_model())
        if not self.is_main:
            return True
        self.run.write_model(save)
        if is_best and self.config.checkpoint.keep_best:
            self.run.write_best(save)
        self.run.write_metrics(self.history)
        place = dict(
            epoch=self.epoch,
            step=self.step,
            steps=self.steps,
            images=self.images,
            classes=self.task.classes,
            sums=asdict(self.sums),
            skipped_in_row=self.skipped_in_row,
            history=self.history,
        )
        state = place | learnt
        self.run.write_checkpoint(state, self.config.checkpoint.keep_last)
        return True

    def _restore(self) -> None:
        """Go on from what was saved last; settings that changed since then count."""
        path = parallel.from_main(
            self.accelerator, lambda: self.run.find_checkpoint(self._warn, _check_state)
        )
        state = read_checkpoint(path)
        before, now = ([*map(same_name, names)] for names in (state["classes"], self.task.classes))
        if before != now:
            raise DataError(f"resume: {_changed_classes(before, now)}")
        self.epoch, self.history = state["epoch"], state["history"]
        if state["images"] != self.images:
            self._warn(
                f"data: {self.images:,} training images now, {state['images']:,} before: another order"
            )
        if state["steps"] == self.steps:
            self.step, self.sums = state["step"], _Sums(**state["sums"])
            self.skipped_in_row = state["skipped_in_row"]
        elif state["step"]:
            self._warn(
                f"epoch {self.epoch} starts again: it has {self.steps} steps now, not {state['steps']}"
            )
        try:
            self.learner.load(state, self._steps_done)
        except ValueError as error:
            raise ValueError(f"resume: {path} does not fit this configuration ({error})") from None
        if self.epoch > self.config.epochs:
            print_line(self.console, f"nothing left to train: {len(self.history)} epochs are done")
        else:
            where = f"epoch {self.epoch}, after step {self.step} of {self.steps}"
            print_line(self.console, f"going on in {where}")

    def _warn(self, text: str) -> None:
        print_line(self.console, f"warning: {text}")


def _resolved(config: TrainConfig, resume: bool) -> TrainConfig:
    """The resolved configuration; a run that goes on needs nothing of what it started from."""
    if not resume:
        return resolve(config)
    return replace(resolve(replace(config, pretrained=None)), pretrained=config.pretrained)


STATE: dict[str, Any] = dict(
    epoch=int,
    step=int,
    steps=int,
    images=int,
    classes=list,
    sums=dict,
    skipped_in_row=int,
    history=list,
    model=dict,
    ema=dict | None,
    optimizer=dict,
    scaler=dict | None,
)
"""What a checkpoint holds."""


def _check_state(state: Any) -> None:
    """See that a checkpoint holds what resuming needs; whether weights fit is seen where they are loaded.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(state, dict):
        raise ValueError("holds no state of a run")
    for name, kind in STATE.items():
        if name not in state:
            raise ValueError(f"holds no {name}")
        if not isinstance(state[name], kind):
            raise ValueError(f"holds {name} of type {type(state[name]).__name__}")
    sums, rows = state["sums"], state["history"]
    is_plain = (
        state["epoch"] >= 1
        and 0 <= state["step"] <= state["steps"]
        and all(isinstance(name, str) for name in state["classes"])
        and sums.keys() == asdict(_Sums()).keys()
        and all(isinstance(row, dict) and {"epoch", "train_loss", "seconds"} <= row.keys() for row in rows)
        and all(isinstance(value, int | float) for row in [sums, *rows] for value in row.values())
    )
    if not is_plain:
        raise ValueError("holds a place in the run, classes or metrics that cannot be")


def _changed_classes(before: list[str], now: list[str]) -> str:
    """How the classes of a dataset differ from those it had, in words."""
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    changes = [f"{what}: {few(names)}" for what, names in (("gone", gone), ("new", new)) if names]
    return f"the classes are not those it was trained on ({'; '.join(changes) or 'in another order'})"


@dataclass
class _Sums:
    """What the steps of an epoch add up to, over all processes; times are those of the main one."""

    images: int = 0
    right: int = 0
    counted: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    skipped: int = 0

    def add(self, result: StepResult) -> None:
        """Add a step."""
        self.loss += result.loss
        self.right += result.right
        self.counted += result.counted
        self.images += result.images
