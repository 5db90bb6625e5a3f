"""``v2m data scenes``: make a dataset of scenes with boxes and masks."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from v2m.cli.annotated import extremes
from v2m.data.scenes.config import ScenesConfig
from v2m.data.scenes.files import CLASSES, build_scenes
from v2m.engine.progress import track
from v2m.pictures.scenes import DrawnScene, plot_scenes
from v2m.recipes.scenes import BACKBONE
from v2m.system.names import shell_word
from v2m.system.tables import Column, Kind, TextTable

PICTURE, SHOWN = "samples.png", 12


def run(settings: Any, out: Console, errors: Console) -> int:
    """Make scenes, count and draw them.

    Args:
        settings: Parsed options of ``v2m data scenes``.
        out: Where the table goes.
        errors: Where progress goes.
    """
    output = Path(settings.output)
    sizes = tuple(map(_size, settings.sizes))
    config = ScenesConfig(settings.train, settings.val, settings.seed, sizes)
    made = build_scenes(config, output, Path(settings.data_dir))
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
