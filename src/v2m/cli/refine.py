"""Compare the exact recurrence of a trained model with its approximation by sweeps."""

from dataclasses import dataclass
from pathlib import Path

from v2m.cli.options import DeviceOptions, ImageOptions, positional
from v2m.tasks.checks import check_least

REFINEMENT = "refinement.png"
"""Picture of errors over the number of sweeps."""


@dataclass(frozen=True, kw_only=True)
class RefineOptions(ImageOptions, DeviceOptions):
    """Options of ``v2m refine``.

    Attributes:
        model: Run folder of a model with the mixer exact.
        data: Dataset by name or folder; by default the run's own.
        images: Validation images to look at.
        most: Largest number of sweeps.
        output: Folder for the picture; by default the model's.
    """

    model: str = positional()
    data: str | None = None
    images: int = 1000
    most: int = 16
    output: str | None = None

    def __post_init__(self) -> None:
        check_least(self, "", 1, "images", "most")


def run(options: RefineOptions) -> int:
    """Measure the sweeps, print a table and draw it."""
    from torch.utils.data import Subset

    from v2m.cli.output import console, number_table
    from v2m.cli.trained import open_folder, own_data
    from v2m.data.loading import EvalLoader
    from v2m.engine.device import find_device
    from v2m.engine.progress import track
    from v2m.explain.sweeps import measure_refinement
    from v2m.pictures import plot_refinement
    from v2m.tasks.classification.saved import load

    folder = open_folder(options.model, console(stderr=True))
    saved = load(folder)
    source = options.data or own_data(folder.path)
    images = saved.evaluator.open_data(source, Path(options.data_dir), allow_outside=options.allow_outside)
    # Every so many images are taken, since the dataset may be sorted by class.
    step = max(1, len(images) // options.images)
    batch = next(iter(EvalLoader(Subset(images, range(0, len(images), step)), options.images)))
    out, device = console(), find_device(options.device)
    iterations = range(options.most + 1)
    found = measure_refinement(
        saved.model.to(device), batch.images.to(device), batch.targets.to(device), iterations
    )
    rows = list(track(found, "sweeps", options.most + 2, out))
    table = number_table("sweeps", "largest error", "same class", "accuracy")
    for row in rows:
        sweeps = "exact" if row.sweeps is None else str(row.sweeps)
        table.add_row(sweeps, f"{row.error:.1e}", f"{row.agreement:.2%}", f"{row.top1:.2%}")
    out.print(table)
    output = Path(options.output or folder.path)
    output.mkdir(parents=True, exist_ok=True)
    picture = output / REFINEMENT
    exact, *iterative = rows
    plot_refinement(
        [row.sweeps or 0 for row in iterative],
        [row.error for row in iterative],
        [row.top1 for row in iterative],
        exact.top1,
        picture,
        f"{saved.name} on {Path(source).resolve().name}: {len(batch.targets):,} images",
    )
    out.print()
    out.print("Largest error: of a logit, as a share of the largest.")
    out.print(f"picture: {picture}")
    return 0
