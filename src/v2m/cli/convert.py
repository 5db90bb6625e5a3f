"""Turn a checkpoint of the released V2M code into a folder in timm's hub format.

With --decay geometric, models of this package too: one decay rate per channel, which is faster, is fitted to
the trained ones.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from v2m.cli.options import Options, positional
from v2m.tasks.names import HUB, LOCAL_DIR, WEIGHTS

if TYPE_CHECKING:
    from v2m.engine.run_folder import RunFolder
    from v2m.models.decay import RateErrors
    from v2m.system.tables import TextTable


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options):
    """Options of ``v2m convert``.

    Attributes:
        checkpoint: File with the released model's parameters; with --decay also a run folder, another in hub
            format, or hf-hub:OWNER/NAME.
        output: New folder.
        labels: Text file with one class name per line, for a released model.
        decay: geometric fits one decay rate per channel to those of its states, and says how far off it is.
    """

    checkpoint: str = positional()
    output: str = positional()
    labels: str | None = None
    decay: Literal["geometric"] | None = None


def run(options: ConvertOptions) -> int:
    """Convert a checkpoint, or the decay rates of a trained model."""
    from v2m.cli.output import console
    from v2m.cli.trained import open_folder
    from v2m.engine.run_folder import RunFolder
    from v2m.tasks.decay import with_geometric_decay
    from v2m.tasks.model_folder import read_folder

    out, output = console(), RunFolder(options.output)
    if _is_folder(options.checkpoint):
        if options.decay is None:
            raise ValueError(
                f"{options.checkpoint}: a model of this package, only its decay rates can be converted: "
                "--decay geometric"
            )
        if options.labels:
            raise ValueError(f"labels: {options.checkpoint} has its own names of classes, leave --labels out")
        made = with_geometric_decay(open_folder(options.checkpoint, console(stderr=True)))
        output.create()
    else:
        name, classes = _convert_released(options, output)
        if options.decay is None:
            out.print(f"{name} with {classes} classes is in {output.path}")
            return 0
        made = with_geometric_decay(read_folder(output.path))
    output.write_model(made.save)
    out.print(_table(made.errors))
    out.print()
    out.print(
        "rates: relative errors, median and largest; decays: largest errors of exp(dt * A), over one cell at "
        "the step sizes of dt_proj's bias, and over the distance where they are worst"
    )
    saved = read_folder(output.path).saved
    out.print(
        f"{saved.architecture} with {saved.num_classes} classes and geometric decay is in {output.path}"
    )
    return 0


def _is_folder(source: str) -> bool:
    """Whether what is to be converted is a folder with a model of this package, or the weights in one."""
    path = Path(source)
    return source.startswith((HUB, LOCAL_DIR)) or path.is_dir() or path.name == WEIGHTS


def _convert_released(options: ConvertOptions, output: "RunFolder") -> tuple[str, int]:
    """Convert a checkpoint of the released code; gives the model's name and number of classes."""
    from timm.layers import to_2tuple

    from v2m.models.convert import convert_checkpoint
    from v2m.system.files import read_names
    from v2m.tasks.classification.config import InputConfig
    from v2m.tasks.classification.data import resolve_image_spec
    from v2m.tasks.classification.evaluation import ClassificationEvaluator
    from v2m.tasks.classification.saved import save

    model = convert_checkpoint(options.checkpoint)
    if options.labels:
        classes = read_names(Path(options.labels))
    else:
        classes = [str(i) for i in range(model.num_classes)]
    if len(classes) != model.num_classes:
        raise ValueError(f"labels: {options.labels} has {len(classes)} lines, expected {model.num_classes}")
    output.create()
    spec = resolve_image_spec(InputConfig(img_size=to_2tuple(model.config.img_size)), "", model.default_cfg)
    evaluator = ClassificationEvaluator(classes, spec)
    output.write_model(lambda folder: save(model, evaluator, folder))
    return model.default_cfg["architecture"], model.num_classes


def _table(errors: "list[RateErrors]") -> "TextTable":
    """How far the rates of each mixer are off."""
    from v2m.cli.output import number_table

    table = number_table("mixer", "rates, median", "largest", "decays, one cell", "any distance")
    for e in errors:
        rates = (f"{100 * error:.2f} %" for error in (e.median, e.largest))
        table.add_row(e.mixer, *rates, f"{e.one_cell:.4f}", f"{e.any_distance:.4f}")
    return table
