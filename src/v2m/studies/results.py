"""What a study found: the result of each run, and a table of mean and standard deviation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from v2m.studies.run import PLACES, StudyRun
from v2m.system.files import replace_file
from v2m.system.tables import Column, Kind, TextTable
from v2m.tasks import load_model
from v2m.tasks.task import Metric


@dataclass(frozen=True)
class StudyResult:
    """A finished run, scored after its last epoch.

    Attributes:
        label: The variant that it is a run of.
        seed: Its seed.
        parameters: Parameters of its model.
        epochs: Epochs that were trained.
        metrics: Its task's metrics after the last epoch, as in ``metrics.jsonl``: those of the (augmented)
            training images begin with ``train_``, those of the validation images with ``val_``.
        seconds: Time of all training steps.
        config: Its resolved configuration, without folders and whatever else is of this machine.
    """

    label: str
    seed: int
    parameters: int
    epochs: int
    metrics: dict[str, float]
    seconds: float
    config: dict[str, Any]

    @classmethod
    def of(cls, run: StudyRun) -> "StudyResult":
        """Read the result of a finished run."""
        rows = run.folder.read_metrics()
        # As they are in the command. The run folder has whole paths, which are of this machine.
        given = dict(data=run.config.data, pretrained=run.config.pretrained)
        model = load_model(run.folder.path).model
        return cls(
            label=run.label,
            seed=run.config.seed,
            parameters=sum(p.numel() for p in model.parameters()),
            epochs=len(rows),
            metrics={k: v for k, v in rows[-1].items() if k.startswith(("train_", "val_"))},
            seconds=sum(row["seconds"] for row in rows),
            config={k: v for k, v in run.folder.read_config().items() if k not in PLACES} | given,
        )


def results_table(
    results: Sequence[StudyResult], about: Mapping[str, str], metrics: Sequence[Metric]
) -> TextTable:
    """A table of the variants: scores in percent, mean and sample standard deviation over seeds.

    Args:
        results: Results of the runs that are done.
        about: What each variant is, by label. The first variant is the baseline.
        metrics: The scores to show. The difference to the baseline is that of the first one.
    """
    # By label and seed. A variant without a finished run has its row too.
    scores: dict[str, dict[int, list[float]]] = {label: {} for label in about}
    parameters = {}
    for result in results:
        scores[result.label][result.seed] = [100 * result.metrics[f"val_{key}"] for key, _ in metrics]
        parameters[result.label] = f"{result.parameters:,}"

    baseline = next(iter(about))
    shares = [f"{name} (%)" for _, name in metrics]
    numbers = ("parameters", "runs", *shares, f"difference to {baseline}", "pairs")
    table = TextTable(
        Column("variant", Kind.NAME),
        Column("what it is", Kind.TEXT),
        *map(Column, numbers),
        first_left_out=["parameters", "pairs", "runs", "what it is"],
    )

    for label, by_seed in scores.items():
        # The same seed has the same order of images. Differences within a seed have less chance in them.
        common = [seed for seed in by_seed if seed in scores[baseline] and label != baseline]
        differences = [by_seed[seed][0] - scores[baseline][seed][0] for seed in common]
        table.add_row(
            label,
            about[label],
            parameters.get(label, "-"),
            str(len(by_seed)),
            *(_spread([values[i] for values in by_seed.values()]) for i in range(len(metrics))),
            _spread(differences, "+"),
            str(len(common)) if label != baseline else "-",
        )
    return table


def write_results(path: Path, title: str, results: Sequence[StudyResult]) -> None:
    """Write the title of a study and the results of its runs as JSON."""
    content = dict(study=title, runs=[asdict(result) for result in results])
    replace_file(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))


def _spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and, of two or more values, sample standard deviation. ``sign`` is that of a format."""
    if not values:
        return "-"
    return f"{mean(values):{sign}.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
