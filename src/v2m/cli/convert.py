"""Turn a checkpoint of the released V2M code into a folder in timm's hub format."""

from dataclasses import dataclass
from pathlib import Path

from v2m.cli.options import Options, positional


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options):
    """Options of ``v2m convert``.

    Attributes:
        checkpoint: File with the released model's parameters.
        output: New folder.
        labels: Text file with one class name per line.
    """

    checkpoint: str = positional()
    output: str = positional()
    labels: str | None = None


def run(options: ConvertOptions) -> int:
    """Convert a checkpoint."""
    from timm.layers import to_2tuple

    from v2m.cli.output import console
    from v2m.engine.run_folder import RunFolder
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
    output = RunFolder(options.output)
    output.create()
    spec = resolve_image_spec(InputConfig(img_size=to_2tuple(model.config.img_size)), "", model.default_cfg)
    evaluator = ClassificationEvaluator(classes, spec)
    output.write_model(lambda folder: save(model, evaluator, folder))
    console().print(
        f"{model.default_cfg['architecture']} with {model.num_classes} classes is in {output.path}"
    )
    return 0
