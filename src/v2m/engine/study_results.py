"""What a study found: each run, and a table of mean and standard deviation."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich import box
from rich.table import Table

from v2m.data import replace_file
from v2m.engine.study import PLACES, StudyRun
from v2m.tasks.classification.head import load_model


@dataclass(frozen=True)
class StudyResult:
    """A finished run, scored after its last epoch.

    Attributes:
        label: The variant that it is a run of.
        seed: Its seed.
        parameters: Parameters of its model.
        epochs: Epochs that were trained.
        top1: Share of validation images that it got right.
        val_loss: Its mean cross-entropy on them.
        train_top1: Share of (augmented) training images that it got right in the last epoch.
        seconds: Time of all training steps.
        config: Its resolved configuration, without places on this machine.
    """

    label: str
    seed: int
    parameters: int
    epochs: int
    top1: float
    val_loss: float
    train_top1: float
    seconds: float
    config: dict[str, Any]

    @classmethod
    def of(cls, run: StudyRun) -> "StudyResult":
        """Read the result of a finished run."""
        rows = run.folder.read_metrics()
        return cls(
            label=run.label,
            seed=run.config.seed,
            parameters=sum(p.numel() for p in load_model(run.folder.path).model.parameters()),
            epochs=len(rows),
            top1=rows[-1]["val_top1"],
            val_loss=rows[-1]["val_loss"],
            train_top1=rows[-1]["train_top1"],
            seconds=sum(row["seconds"] for row in rows),
            config={k: v for k, v in run.folder.read_config().items() if k not in PLACES},
        )


def results_table(results: Iterable[StudyResult], about: Mapping[str, str]) -> Table:
    """Accuracy of each variant in percent, as Markdown: mean and sample standard deviation over the seeds.

    Args:
        results: The runs.
        about: What each variant is, by its label. The others are compared with the first, seed by seed.
    """
    top1: dict[str, dict[int, float]] = {label: {} for label in about}
    parameters = {}
    for result in results:
        top1[result.label][result.seed] = 100 * result.top1
        parameters[result.label] = f"{result.parameters:,}"
    baseline = next(iter(about))
    table = Table(box=box.MARKDOWN)
    for heading in ("variant", "what it is"):
        table.add_column(heading)
    for heading in ("parameters", "runs", "top-1 (%)", f"difference to {baseline}", "pairs"):
        table.add_column(heading, justify="right")
    for label, scores in top1.items():
        common = [seed for seed in scores if seed in top1[baseline] and label != baseline]
        differences = [scores[seed] - top1[baseline][seed] for seed in common]
        table.add_row(
            label,
            about[label],
            parameters.get(label, "-"),
            str(len(scores)),
            _spread([*scores.values()]),
            _spread(differences, "+"),
            str(len(common)) if label != baseline else "-",
        )
    return table


def write_results(path: Path, title: str, results: Sequence[StudyResult]) -> None:
    """Write every run as JSON."""
    content = dict(study=title, runs=[asdict(result) for result in results])
    replace_file(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))


def _spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and, of two or more, sample standard deviation."""
    if not values:
        return "-"
    return f"{mean(values):{sign}.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
