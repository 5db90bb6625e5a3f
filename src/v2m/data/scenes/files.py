"""A set of scenes on the disk: images, boxes and instance masks in COCO format, and semantic masks."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from v2m.data.classes.open import open_dataset
from v2m.data.scenes.config import ScenesConfig
from v2m.data.scenes.parts import Mask
from v2m.data.scenes.scene import Scene, make_scene
from v2m.data.splits import Split
from v2m.system.files import flush_folder, refuse_link, replace_file

COMPRESSION = 2
"""Of PNGs: twice as fast as the default, 3% larger."""
IMAGES, MASKS, ANNOTATIONS, CLASSES, SETTINGS = "images", "masks", "annotations", "classes.txt", "scenes.json"
PARTIAL = ".partial"


def build_scenes(config: ScenesConfig, output: Path, data_dir: Path) -> Iterator[Scene]:
    """Make scenes and write them; the folder is complete once the last one was taken.

    Args:
        config: The settings; the same ones give the same files.
        output: New folder, or one of the same settings, which is built anew.
        data_dir: Where Fashion-MNIST is kept or downloaded to.

    Yields:
        Every scene, those to train on first.

    Raises:
        FileExistsError: ``output`` holds something else.
        DataError: Fashion-MNIST could not be downloaded.
    """
    garments = {split: open_dataset("fashion-mnist", split, data_dir) for split in get_args(Split)}
    classes = garments["train"].classes
    _claim(output, config)

    # All is made in a folder beside, and only moved once it is complete.
    partial = output / PARTIAL
    for split, data in garments.items():
        annotated = _Annotations(classes)
        for folder in (partial / IMAGES / split, partial / MASKS / split):
            folder.mkdir(parents=True)
        for index in range(getattr(config, split)):
            scene = make_scene(config, data, split, index)
            name = annotated.add(scene)
            for kind, pixels in ((IMAGES, scene.image), (MASKS, scene.semantic)):
                Image.fromarray(pixels).save(partial / kind / split / name, compress_level=COMPRESSION)
            yield scene
        (partial / ANNOTATIONS).mkdir(exist_ok=True)
        _write(partial / ANNOTATIONS / f"instances_{split}.json", json.dumps(annotated.content))
    _write(output / CLASSES, "\n".join(["background", *classes]) + "\n")
    if hasattr(os, "sync"):  # not on Windows
        os.sync()  # one by one it would take as long as making them
    # Annotations come last: without them the folder is no dataset of objects.
    for kind in (IMAGES, MASKS, ANNOTATIONS):
        (partial / kind).rename(output / kind)
    partial.rmdir()
    flush_folder(output)


class _Annotations:
    """The annotations of a split in COCO format."""

    def __init__(self, classes: list[str]) -> None:
        self.content: dict[str, Any] = dict(
            info=dict(description="Scenes of Fashion-MNIST garments, made by v2m data scenes"),
            images=[],
            categories=[dict(id=i, name=name, supercategory="garment") for i, name in enumerate(classes, 1)],
            annotations=[],
        )

    def add(self, scene: Scene) -> str:
        """Add a scene; the name of its files."""
        images, annotations = self.content["images"], self.content["annotations"]
        image_id = len(images) + 1
        name = f"{image_id:06}.png"
        height, width = scene.image.shape[:2]
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
        for label, box, mask in zip(scene.labels.tolist(), scene.boxes.tolist(), scene.masks, strict=True):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=box,
                    area=int(mask.sum()),
                    iscrowd=0,
                    segmentation=dict(size=[height, width], counts=run_lengths(mask)),
                )
            )
        return name


def run_lengths(mask: Mask) -> list[int]:
    """Lengths of the runs of a mask column by column, as COCO counts them: zeros first, maybe none."""
    column = mask.ravel(order="F")
    starts = np.flatnonzero(column[1:] != column[:-1]) + 1
    lengths: list[int] = np.diff(starts, prepend=0, append=len(column)).tolist()
    return [0, *lengths] if column[0] else lengths


def _claim(output: Path, config: ScenesConfig) -> None:
    """Make the folder, or empty one of the same settings, so that what is there is never half of a set.

    Raises:
        FileExistsError: it holds something else.
    """
    settings, text = output / SETTINGS, json.dumps(asdict(config), indent=2) + "\n"
    if output.is_dir() and any(output.iterdir()):
        if not settings.is_file():
            raise FileExistsError(f"output: {output} is not empty, choose another folder")
        if settings.read_text(encoding="utf-8") != text:
            raise FileExistsError(f"output: {output} holds scenes of other settings, choose another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"output: {output} cannot be made ({error.strerror})") from None
    _write(settings, text)
    # No link is followed to delete what it leads to. Annotations go first, as they came last.
    kinds = (ANNOTATIONS, MASKS, IMAGES, PARTIAL)
    for kind in kinds:
        refuse_link(output / kind, "delete it")
    for kind in kinds:
        if (output / kind).is_dir():
            shutil.rmtree(output / kind)
    (output / CLASSES).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))
