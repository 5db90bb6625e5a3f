"""Time inference and a training step of models, ours or timm's."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2m.cli.bench.report import SizesOptions, check_sizes, run_benchmark

if TYPE_CHECKING:
    import torch

    from v2m.benchmark.timing import Tracker
    from v2m.cli.bench.report import Tables


@dataclass(frozen=True, kw_only=True)
class ModelsOptions(SizesOptions):
    """Options of ``v2m bench models``.

    Attributes:
        models: Which, the first for ratios; NAME, or NAME:argument=value,argument=value.
        resolutions: Heights and widths in pixels.
    """

    models: tuple[str, ...] = ("v2m_tiny_patch16_224", "deit_tiny_patch16_224")
    resolutions: tuple[int, ...] = (224,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes("resolutions", self.resolutions)


def run(options: ModelsOptions) -> int:
    """Time the models at every resolution."""
    import torch

    from v2m.benchmark import models
    from v2m.pictures.scaling import plot_scaling

    def measure(device: "torch.device", track: "Tracker") -> "Tables":
        choices = [models.ModelChoice.parse(text) for text in dict.fromkeys(options.models)]
        dtype, sizes = getattr(torch, options.dtype), list(options.resolutions)
        batch_size, rounds = options.batch_size, options.rounds
        groups = models.bench_models(choices, sizes, batch_size, rounds, device, dtype, options.memory, track)
        for group in groups:
            yield f"{group[0].mode}, {group[0].resolution} px, batch {batch_size}", [*group]

    def draw(rows: list[Any], path: Path, title: str) -> None:
        plot_scaling(models.panels(rows), "height and width in pixels", path, title)

    return run_benchmark("models", options, measure, draw)
