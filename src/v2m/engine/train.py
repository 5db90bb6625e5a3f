"""The training loop: epochs, evaluation, what is saved and what is told. Nothing here knows tensors.

What an epoch's images are, and in which order, is ``v2m.data.loading.TrainLoader``'s; one step is the
``Learner``'s; files are the ``RunFolder``'s.
"""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NoReturn

from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console

from v2m.data.loading import Batch, EvalLoader, TrainLoader, Unreadable
from v2m.engine import parallel, processes, sharding
from v2m.engine.checkpoint import read_checkpoint
from v2m.engine.device import memory_mb
from v2m.engine.evaluate import Evaluation, evaluate
from v2m.engine.facts import about_data, about_device, about_model, about_steps
from v2m.engine.learner import Learner, StepIndex
from v2m.engine.progress import StepStatus, TrainProgress, print_fact, print_line
from v2m.engine.resolve import resolve
from v2m.engine.run_folder import Metrics, RunFolder, best_row
from v2m.engine.run_state import EpochSums, changed_classes, check_state
from v2m.engine.stopping import Interrupted, stop_requests, when_stopped
from v2m.engine.trackers import Trackers
from v2m.system.errors import DataError, same_name
from v2m.system.names import shell_word
from v2m.tasks import Task, find_task
from v2m.tasks.config import TrainConfig, settings
from v2m.tasks.evaluation import is_finite

ANSWER = "stopping after this step, then saving; Ctrl-C again stops at once"
STEPS_BETWEEN_LOGS = 20
ADVICE = "Try a lower --optimizer.lr or --optimizer.clip_grad"


class NonFiniteLossError(ArithmeticError):
    """Losses or gradients stayed infinite or NaN; what was saved before is kept."""


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a finished run.

    Attributes:
        run: Its folder.
        evaluation: The last evaluation.
        task: Its task, with the data.
        is_main: Whether this process is the one that writes and prints.
    """

    run: RunFolder
    evaluation: Evaluation
    task: Task[Any]
    is_main: bool


def train(
    config: TrainConfig,
    console: Console,
    resume: bool = False,
    on_epoch: Callable[[RunFolder], None] | None = None,
) -> TrainResult:
    """Train a model and keep everything in its run folder.

    In several processes (torchrun) each one calls this, and the main one writes. The moving average of the
    weights is evaluated after every epoch. It is saved whatever its score, so the last score is of weights
    that nobody chose by looking at the validation images.

    Args:
        config: The run.
        console: Where progress goes.
        resume: Continue in ``config.output`` from what was saved last.
        on_epoch: Called with the run folder after each epoch that was saved, by the main process.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the run can be resumed.
        NonFiniteLossError: losses or gradients stayed NaN or infinite.
        ValueError: a setting or the data cannot be used.
        OSError: something could not be read or written, or another process is gone.
    """
    accelerator = parallel.start(config.device, config.precision, config.timeout)
    with parallel.lost_processes(accelerator), ExitStack() as held:
        # One configuration for all processes: each would name the folder by another time.
        config, resume = parallel.from_main(accelerator, lambda: (_resolved(config, resume), resume))
        run = RunFolder(config.output or "")
        held.enter_context(when_stopped(partial(_last_words, run)))
        result = _Trainer(config, run, console, accelerator, resume, held).fit(on_epoch)
        accelerator.end_training()
    return result


class _Trainer:
    """One run, in one of its processes.

    Args:
        config: The run, resolved.
        run: Its folder.
        console: Where progress goes.
        accelerator: The processes.
        resume: Whether to continue from what was saved last.
        held: What stays open until the run ends: the lock of the run folder.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunFolder,
        console: Console,
        accelerator: Accelerator,
        resume: bool,
        held: ExitStack,
    ) -> None:
        self.accelerator, self.is_main = accelerator, accelerator.is_main_process
        self.console = console if self.is_main else Console(quiet=True)
        # The order matters: each step needs those before it, and nothing is written until settings, data and
        # model are known to be good. A mistake leaves no folder behind.

        # 1. What computes, and the task.
        self.config, self.run = config, run
        self.task: Task[Any] = find_task(config.task)(config)
        set_seed(config.seed)

        # Each fact is told as soon as it is known: what comes next may take long.
        self._tell("device", about_device(accelerator, config))

        # 2. The data, which say how many classes and steps there are.
        if resume:
            self.task.recall(self.run.path)
        self._open_data()
        self._tell("data", about_data(self.task))

        # 3. What learns, and where in the run it is: at the start.
        steps = config.epochs * self.steps
        pretrained = None if resume else config.pretrained
        self.learner = Learner(self.task, accelerator, steps, pretrained)
        self._tell("model", about_model(self.task, self.learner.model, pretrained))
        self._tell("steps", about_steps(config, self.train_batches))
        self.epoch, self.step = 1, 0  # the epoch being trained, and its steps that are done
        self.sums, self.skipped_in_row = EpochSums(), 0
        self.history: list[Metrics] = []
        self.unreadable: list[tuple[str, Unreadable]] = []  # since the last save, by split

        # 4. The folder. It is locked before a checkpoint is looked for, since damaged ones are renamed.
        if self.is_main and not resume:
            self.run.create()
        if self.is_main and self.run.path.is_dir():
            held.enter_context(self.run.locked())
        self._tell("folder", str(self.run.path))

        # 5. What was saved last. A run that cannot go on keeps its train.yaml, so that is written at the end.
        if resume:
            self._restore()
        if self.is_main:
            self.run.write_config(config)
            self.task.keep(self.run.path)
        self.saved_at = time.monotonic()

    def _open_data(self) -> None:
        config, task = self.config, self.task
        with self.accelerator.local_main_process_first():  # which may have to download
            task.open_data(self._warn)
        for line in task.notes:
            print_line(self.console, line)
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
        micro_batch = self.train_batches.batch_size // self.accelerator.num_processes // config.accumulate
        self.val_batches = EvalLoader(
            task.val_data, task.eval_parts * micro_batch, collate=task.evaluator.collate, **share
        )

    @property
    def _steps_done(self) -> int:
        return (self.epoch - 1) * self.steps + self.step

    def fit(self, on_epoch: Callable[[RunFolder], None] | None) -> TrainResult:
        """Train what is left of the run."""
        progress = TrainProgress(
            self.console,
            self.config.epochs,
            self.steps,
            self._steps_done,
            self.config.workers,
            processes.local_world_size(),
            self.task.train_metric,
            self.task.val_metrics,
        )
        trackers = Trackers(
            self.config.trackers, self.run.path, settings(self.config), self._steps_done, self.console
        )
        evaluation, is_saved = None, True
        with stop_requests(ANSWER) as stop_requested, progress, trackers:
            while self.epoch <= self.config.epochs:
                self._train_epoch(progress, trackers, stop_requested)
                evaluation = self._evaluate(stop_requested)
                row, is_saved = self._end_epoch(evaluation)
                trackers.log({f"epoch/{name}": value for name, value in row.items()}, self._steps_done)
                if self.is_main:
                    progress.epoch(row)
                    if is_saved and on_epoch:
                        on_epoch(self.run)
                if self.epoch <= self.config.epochs and any(
                    parallel.in_any(self.accelerator, stop_requested())
                ):
                    self._stop(is_saved)
            if evaluation is None:  # all epochs were done, but files may have been lost since then
                evaluation = self._evaluate(stop_requested)
                self._save(evaluation)
            elif not is_saved:  # no later epoch can make this good
                raise NonFiniteLossError(
                    f"{_first_nonfinite(evaluation)} after the last epoch; kept: {self._kept}. {ADVICE}"
                )
        return TrainResult(self.run, evaluation, self.task, self.is_main)

    def _train_epoch(
        self, progress: TrainProgress, trackers: Trackers, stop_requested: Callable[[], bool]
    ) -> None:
        """Train what is left of the epoch.

        Raises:
            Interrupted: a process was asked to stop.
        """
        self.learner.train()
        last = time.monotonic()
        for micro_batches in self.train_batches.epoch(self.epoch, self.step):
            waited = time.monotonic() - last
            lr = self.learner.lr
            is_stopped, is_due = self._train_step(micro_batches, stop_requested, self._is_save_due)
            self.step += 1

            # Tell. The time of a step goes from the end of the one before, so waiting is a part of it.
            now = time.monotonic()
            self.sums.seconds += now - last
            self.sums.waited += waited
            last = now
            status = self._status(lr)
            progress.step(status)
            if self._steps_done % STEPS_BETWEEN_LOGS == 0:
                trackers.log({f"step/{name}": v for name, v in asdict(status).items()}, self._steps_done)

            # Save or stop, if any process voted for it. Saving needs all of them.
            if is_stopped:
                self._stop()
            if is_due:
                self._list_unreadable()
                self._save()

    def _stop(self, is_saved: bool = False) -> NoReturn:
        """Save all, unless that was just done, and end; every process does so at the same place.

        Raises:
            Interrupted: always.
        """
        self._list_unreadable()
        is_saved = is_saved or self._save()
        saved = "and saved" if is_saved else "without saving, since steps are being skipped,"
        place = f"in epoch {self.epoch}, step {self.step} of {self.steps}"
        where = place if self.step else f"after epoch {self.epoch - 1}"
        self.accelerator.wait_for_everyone()  # a launcher may end all as soon as the first one ends
        raise Interrupted(f"stopped {saved} {where}; continue with: {_resume_command(self.run)}")

    def _train_step(self, micro_batches: list[Batch], *questions: Callable[[], bool]) -> list[bool]:
        """Do a step.

        Returns:
            For each question, whether any process voted yes.

        Raises:
            NonFiniteLossError: too many steps in a row were skipped.
        """
        self.unreadable += [("train", item) for batch in micro_batches for item in batch.unreadable]
        index = StepIndex(self.epoch, self.step, self._steps_done)
        result = self.learner.step(micro_batches, index, questions)
        if result.is_finite:
            self.sums.add(result)
            self.skipped_in_row = 0
        else:
            self.sums.skipped += 1
            self.skipped_in_row += 1
        has_trained = self.sums.images or self.step + 1 < self.steps  # or may do so in this epoch
        if self.skipped_in_row > self.config.skip_limit or not has_trained:
            where = self.learner.find_nonfinite(micro_batches, index)
            raise NonFiniteLossError(
                f"loss or gradient was NaN or infinite in {self.skipped_in_row} steps in a row, until epoch "
                f"{self.epoch}, step {self.step + 1} (learning rate {self.learner.lr:.2g}); "
                f"where it began: {where}; kept: {self._kept}. {ADVICE}"
            )
        return [number > 0 for number in result.votes]

    def _is_save_due(self) -> bool:
        return self.is_main and time.monotonic() - self.saved_at > 60 * self.config.checkpoint.minutes

    @property
    def _kept(self) -> str:
        return str(self.run.path) if self.run.has_checkpoint else "nothing"

    def _evaluate(self, stop_requested: Callable[[], bool]) -> Evaluation:
        """Score the weights.

        Raises:
            Interrupted: a process was asked to stop. The evaluation is done again on resuming.
        """
        model, accelerator = self.learner.model, self.accelerator
        sharding.broadcast_buffers(model, accelerator)  # so that scores are of what is saved
        results = self.task.evaluator.results(self.task.val_data)
        try:
            with sharding.unsharded(model):
                found = evaluate(model, self.val_batches, results, accelerator, stop_requested)
        except Interrupted:
            self._stop()
        self.unreadable += [("val", item) for item in found.unreadable if self.is_main]
        return found

    def _end_epoch(self, evaluation: Evaluation) -> tuple[Metrics, bool]:
        """The metrics of the epoch that was trained, and whether it could be saved."""
        self._list_unreadable()
        row = self._metrics(evaluation)
        # The checkpoint says "at the start of the next epoch", so that comes before saving.
        self.history.append(row)
        is_best = best_row(self.history, [key for key, _ in self.task.val_metrics]) is row
        self.epoch, self.step, self.sums = self.epoch + 1, 0, EpochSums()
        return row, self._save(evaluation, is_best)

    def _metrics(self, evaluation: Evaluation) -> Metrics:
        sums, scores = self.sums, evaluation.scores
        row = dict(epoch=self.epoch, lr=self.learner.lr, train_loss=sums.loss / sums.images)
        if self.task.train_metric:
            row[f"train_{self.task.train_metric.key}"] = sums.right / max(sums.counted, 1)
        row |= {f"val_{name}": value for name, value in scores.metrics.items()}
        return row | dict(
            val_images=scores.images,
            images_per_s=sums.images / sums.seconds,
            seconds=sums.seconds,
            data_wait=sums.waited / sums.seconds,
            skipped=sums.skipped,
            unreadable=len(self.run.read_unreadable()),
        )

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
        """Save everything, and say whether that was done.

        Weights that give no finite loss are not saved. Without an evaluation, skipped steps tell of these.
        """
        self.saved_at = time.monotonic()
        has_finite_loss = is_finite(evaluation.scores) if evaluation else not self.skipped_in_row
        if not has_finite_loss:
            return False
        # Sharded tensors are gathered here, by all processes. The rest is for the one that writes.
        learner_state, save = self.learner.state(), partial(self.task.save, self.learner.plain_model())
        if not self.is_main:
            return True
        self.run.write_model(save)
        if is_best and self.config.checkpoint.keep_best:
            self.run.write_best(save)
        self.run.write_metrics(self.history)
        state = dict(
            epoch=self.epoch,
            step=self.step,
            steps=self.steps,
            images=self.images,
            classes=self.task.classes,
            sums=asdict(self.sums),
            skipped_in_row=self.skipped_in_row,
            history=self.history,
        )
        # The checkpoint is last. If saving is interrupted before, all of it is done again on resuming.
        self.run.write_checkpoint(state | learner_state, self.config.checkpoint.keep_last)
        return True

    def _restore(self) -> None:
        """Go on from what was saved last. Settings that changed since then count."""
        # The main process chooses the checkpoint; the others read the same one.
        if self.is_main:
            found = self.run.find_checkpoint(self._warn, check_state)
        path = parallel.from_main(self.accelerator, lambda: found.path)
        state = found.state if self.is_main else read_checkpoint(path)

        # The data may have changed: other classes end the run, other images have another order.
        before, now = ([*map(same_name, names)] for names in (state["classes"], self.task.classes))
        if before != now:
            raise DataError(f"resume: {changed_classes(before, now)}")
        self.epoch, self.history = state["epoch"], state["history"]
        if len(self.history) > self.config.epochs:
            done = len(self.history)
            raise ValueError(f"epochs is {self.config.epochs}, but {done} are done, expected {done} or more")
        if state["images"] != self.images:
            self._warn(
                f"data: {self.images:,} training images now, {state['images']:,} before: another order"
            )
        if state["steps"] == self.steps:
            self.step, self.sums = state["step"], EpochSums(**state["sums"])
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

    def _tell(self, name: str, fact: str) -> None:
        print_fact(self.console, name, fact)

    def _warn(self, text: str) -> None:
        print_line(self.console, f"warning: {text}")


def _resolved(config: TrainConfig, resume: bool) -> TrainConfig:
    """The resolved configuration. A run that goes on needs nothing of what it started from."""
    if not resume:
        return resolve(config)
    return replace(resolve(replace(config, pretrained=None)), pretrained=config.pretrained)


def _resume_command(run: RunFolder) -> str:
    return f"v2m train --resume {shell_word(str(run.path))}"


def _last_words(run: RunFolder) -> str:
    """What to say of a run that is stopped at once."""
    if not run.has_checkpoint:
        return "stopped; nothing was saved yet, the same command starts again"
    return f"stopped at once; what was saved before is kept, continue with: {_resume_command(run)}"


def _first_nonfinite(evaluation: Evaluation) -> str:
    metrics = evaluation.scores.metrics
    name = next(name for name, value in metrics.items() if not math.isfinite(value))
    return f"{name} on the validation images is {metrics[name]}"
