"""Make scenes of Fashion-MNIST garments, with boxes, masks of instances, and masks of classes."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from v2m.cli.options import Options, positional
from v2m.data.scenes.config import ScenesConfig
from v2m.tasks.checks import check_least
from v2m.tasks.config import default_data_dir

PICTURE, SHOWN = "samples.png", 12


@dataclass(frozen=True, kw_only=True)
class ScenesOptions(Options):
    """Options of ``v2m data scenes``.

    Attributes:
        output: Folder; one of the same settings is made anew.
        train: Scenes to train on.
        val: Scenes to validate on.
        seed: Seed of every choice.
        sizes: Heights and widths in pixels, such as 96x128; each scene has one of them.
        data_dir: Where Fashion-MNIST is kept.
    """

    output: str = positional()
    train: int = ScenesConfig.train
    val: int = ScenesConfig.val
    seed: int = ScenesConfig.seed
    sizes: tuple[str, ...] = tuple(f"{height}x{width}" for height, width in ScenesConfig.sizes)
    data_dir: str = field(default_factory=default_data_dir)

    def __post_init__(self) -> None:
        check_least(self, "", 1, "train", "val")
        check_least(self, "", 0, "seed")


def run(options: ScenesOptions) -> int:
    """Make scenes, count and draw them."""
    from v2m.cli.data.annotated import extremes
    from v2m.cli.output import console
    from v2m.data.scenes.files import CLASSES, build_scenes
    from v2m.engine.progress import track
    from v2m.pictures.scenes import DrawnScene, plot_scenes
    from v2m.recipes.scenes import BACKBONE
    from v2m.system.names import shell_word
    from v2m.system.tables import Column, Kind, TextTable

    out, errors = console(), console(stderr=True)
    output = Path(options.output)
    sizes = tuple(map(_size, options.sizes))
    config = ScenesConfig(options.train, options.val, options.seed, sizes)
    made = build_scenes(config, output, Path(options.data_dir))
    # Scenes are written as the loop goes on; only those of the picture are kept in memory.
    shown: list[DrawnScene] = []
    garments: dict[str, Counter[int]] = dict(train=Counter(), val=Counter())
    for scene in track(made, "scene", config.train + config.val, errors):
        garments[scene.split].update(scene.labels.tolist())
        if scene.split == "train" and len(shown) < SHOWN:
            shown.append(DrawnScene(scene.image, scene.boxes, scene.masks, scene.labels))
    names = (output / CLASSES).read_text(encoding="utf-8").split("\n")[1:-1]
    plot_scenes(shown, names, output / PICTURE, "Scenes to train on")

    extreme = Column("fewest", Kind.TEXT), Column("most", Kind.TEXT)
    table = TextTable(Column("split", Kind.NAME), Column("images"), Column("objects"), *extreme)
    for split, counts in garments.items():
        most, least = extremes({name: counts[label] for label, name in enumerate(names)})
        table.add_row(split, f"{getattr(config, split):,}", f"{counts.total():,}", least, most)
    out.print(table)
    out.print()
    out.print(f"folder: {output}")
    out.print(f"picture: {output / PICTURE}")
    out.print()
    out.print("Try next:")
    out.print(f"  v2m train --recipe scenes-backbone --output {BACKBONE}")
    for task in ("detection", "segmentation"):
        out.print(f"  v2m train --recipe scenes-{task} --data {shell_word(str(output))}", soft_wrap=True)
    return 0


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text)
    if not found:
        raise ValueError(f"sizes: {text}, expected HEIGHTxWIDTH in pixels, such as 96x128")
    return int(found[1]), int(found[2])
