"""Look at every image of a dataset, its objects and its masks.

Exits with 1 if images cannot be read, are in more than one split, or have a class that the training images
lack, and if annotations or masks are missing or do not fit.
"""

from dataclasses import dataclass
from pathlib import Path

from v2m.cli.options import ImageOptions, positional
from v2m.tasks.checks import check_least


@dataclass(frozen=True)
class LabelOptions:
    """Labels of pixels, as in training.

    Attributes:
        ignore_index: Label of pixels that have none, as in training.
        label_map: Labels of values in mask files, as in training.
    """

    ignore_index: int = 255
    label_map: dict[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class CheckOptions(ImageOptions):
    """Options of ``v2m data check``.

    Attributes:
        source: Dataset by name or folder, as for v2m train --data.
        workers: Processes that read images; by default a core each.
        tiny: Pixels that a side should have.
        input: Labels of pixels.
        output: Folder; by default runs/data-check-NAME.
    """

    source: str = positional()
    workers: int | None = None
    tiny: int = 8
    input: LabelOptions = LabelOptions()
    output: str | None = None

    def __post_init__(self) -> None:
        check_least(self, "", 0, "workers", "tiny")


def run(options: CheckOptions) -> int:
    """Check a dataset: 1 if there is something that training would stumble over."""
    from v2m.cli.data import annotated, classes
    from v2m.cli.output import console
    from v2m.data.coco.check import find_object_checks
    from v2m.data.masks.check import find_mask_checks
    from v2m.system.machine import cores
    from v2m.system.names import safe_name
    from v2m.tasks.segmentation.config import InputConfig

    title = Path(options.source).resolve().name
    output = Path(options.output or Path("runs", safe_name(f"data-check-{title}")))
    workers = cores() if options.workers is None else options.workers
    settings = annotated.AnnotatedSettings(title, output, workers, options.tiny)
    out, errors = console(), console(stderr=True)
    readers = f", with {workers} processes that read images" if workers > 1 else ""
    errors.print(f"checking {options.source}{readers}")
    objects = find_object_checks(options.source, allow_outside=options.allow_outside)
    labels = InputConfig(ignore_index=options.input.ignore_index, label_map=options.input.label_map)
    masks = find_mask_checks(
        options.source, labels.ignore_index, labels.label_map, data_dir=Path(options.data_dir)
    )
    if objects or masks:
        return annotated.check(objects, masks, settings, out, errors)
    return classes.check(options, settings, out, errors)
