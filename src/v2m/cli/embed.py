"""Write the features of a frozen model, before its head.

Goes on where it was stopped.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from v2m.cli.options import DeviceOptions, ImageOptions, positional
from v2m.tasks.checks import check_least

if TYPE_CHECKING:
    from accelerate import PartialState
    from rich.console import Console

    from v2m.data import Split
    from v2m.features.frozen import FrozenModel


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(ImageOptions, DeviceOptions):
    """How features are made, for ``v2m embed`` and ``v2m probe``.

    Attributes:
        batch_size: Images at once.
        workers: Processes that read images.
    """

    batch_size: int = 64
    workers: int = 0

    def __post_init__(self) -> None:
        check_least(self, "", 1, "batch_size")
        check_least(self, "", 0, "workers")


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(FeatureOptions):
    """Options of ``v2m embed``.

    Attributes:
        model: Run folder, or another in hub format; timm/NAME for timm's weights, random/NAME for an
            untrained model.
        data: Dataset by name or folder.
        split: Which images.
        out: File to write: .npz or .parquet.
    """

    model: str = positional()
    data: str = positional()
    split: Literal["train", "val"] = "val"
    out: str


def run(options: EmbedOptions) -> int:
    """Write the features of one split."""
    from v2m.cli.output import console, note_unchecked
    from v2m.engine.device import describe_device
    from v2m.features.embed import processes
    from v2m.features.files import check_output, read_facts
    from v2m.features.frozen import open_frozen

    out, errors = console(), console(stderr=True)
    output = Path(options.out)
    check_output(output)
    with processes(options.device) as state:
        if state.is_main_process:
            what = f"{options.data} {options.split} by {options.model}"
            errors.print(f"embedding {what} on {describe_device(state.device)}")
            note_unchecked(errors, options.model)
        frozen = open_frozen(options.model, options.data)
        write_features(frozen, options.data, options.split, output, options, state, errors)
        if not state.is_main_process:
            return 0
    facts = read_facts(output)
    left_out = len(facts.get("unreadable", ()))
    images = f"{facts['data']['images'] - left_out:,} images"
    if left_out:
        images += f", {left_out} left out"
    out.print(f"{output}: features of {images}, {options.data} {options.split} by {options.model}")
    return 0


def write_features(
    frozen: "FrozenModel",
    data: str,
    split: "Split",
    output: Path,
    options: FeatureOptions,
    state: "PartialState",
    errors: "Console",
) -> None:
    """Write the features of a split into a file, in parts, so that another call can go on after a stop."""
    from v2m.engine.stopping import when_stopped
    from v2m.features.embed import EmbedConfig, embed

    config = EmbedConfig(
        options.data_dir, options.batch_size, options.workers, allow_outside=options.allow_outside
    )
    with when_stopped(_last_words):
        embed(frozen, data, split, output, config, state, errors)


def _last_words() -> str:
    return "stopped; the same command goes on after the last whole part"
