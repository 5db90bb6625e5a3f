"""Objects in images: boxes, masks and classes, annotated in COCO format."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from v2m.data.coco_files import Records, find_annotations, read_records
from v2m.data.coco_table import decode_mask, make_table, mask_api
from v2m.data.errors import DataError, UnreadableImageError, few
from v2m.data.images import fit_annotations, read_image, tell_hidden_turns
from v2m.data.named import Split
from v2m.data.transforms import apply


class Objects(NamedTuple):
    """The objects of an image.

    Attributes:
        boxes: Left, top, right and bottom in pixels, float32 ``[N, 4]``.
        labels: Class indices, int64 ``[N]``.
        masks: uint8 ``[N, H, W]``; None where there are only boxes.
        crowd: Whether it is several objects at once, bool ``[N]``.
        areas: Pixels, float32 ``[N]``.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    crowd: Tensor
    areas: Tensor


class CocoImages(Dataset[Any]):
    """Images of one split with their objects, by number; those without objects are there too.

    An image that cannot be read raises ``UnreadableImageError``, one that its transform fails on
    ``TransformError``; none is skipped or replaced.

    Args:
        path: The annotations.
        folder: Where the images are.
        classes: The classes that labels count in; by default the categories in order of their ids.

    Attributes:
        source: The annotations, for messages.
        classes: Names of the classes.
        category_ids: COCO's id of each class.
        image_ids: COCO's id of each image.
        warnings: A line for each kind of annotation that was mended or left out.
        has_masks: Whether objects come with masks, if the annotations have some; set it to False where
            boxes are enough.
        transform: What ``[]`` makes of an image and its objects; None for the two themselves.

    Raises:
        DataError: the annotations are damaged, or are not of these classes.
    """

    def __init__(self, path: Path, folder: Path, classes: Sequence[str] | None = None) -> None:
        records = read_records(path)
        self.source = str(path)
        self.classes, self.category_ids = _match_classes(records, classes)
        self.image_ids: list[int] = [image["id"] for image in records.images]
        self.transform: Callable[[Image.Image, Objects], Any] | None = None
        self._folder = folder
        self._names: list[str] = [image["file_name"] for image in records.images]
        self._sizes = np.array([(image["height"], image["width"]) for image in records.images])
        self._table, self.warnings = make_table(records, self.category_ids)
        self.warnings += tell_hidden_turns(self.source, len(self), self.name)
        self.has_masks = bool(self._table.segments)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Any:
        image, objects = self.read(index), self.objects(index)
        if self.transform:
            return apply(self.transform, self.name(index), image, objects)
        return image, objects

    def name(self, index: int) -> str:
        """The path."""
        return str(self._folder / self._names[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width, by the annotations."""
        height, width = self._sizes[index].tolist()
        return height, width

    def read(self, index: int) -> Image.Image:
        """The image, 8 bits a channel: upright, or as it is stored where only that has the annotated size.

        Raises:
            UnreadableImageError: it cannot be read, or is not of the size that was annotated.
        """
        height, width = self.size(index)
        image = fit_annotations(read_image(self.name(index)), self.name(index), (width, height))
        if image.size != (width, height):
            reason = f"is {image.width}x{image.height} pixels, the annotations say {width}x{height}"
            raise UnreadableImageError(self.name(index), reason)
        return image

    def objects(self, index: int) -> Objects:
        """What is in an image.

        Raises:
            DataError: a mask is damaged.
            ValueError: the library that decodes masks is not installed.
        """
        table, places = self._table, self._table.of_image(index)
        boxes = table.boxes[places]
        return Objects(
            boxes=torch.from_numpy(np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])).float(),
            labels=torch.from_numpy(table.labels[places].copy()),
            masks=self._decode(index, places) if self.has_masks else None,
            crowd=torch.from_numpy(table.crowd[places].copy()),
            areas=torch.from_numpy(table.areas[places]).float(),
        )

    def _decode(self, index: int, places: slice) -> Tensor:
        api, (height, width) = mask_api(), self.size(index)
        masks = torch.zeros(places.stop - places.start, height, width, dtype=torch.uint8)
        for place, mask in enumerate(masks.numpy(), places.start):
            try:
                mask[:] = decode_mask(api, self._table.segmentation(place), height, width)
            except (ValueError, RuntimeError) as error:
                which = f"annotation {self._table.ids[place]} of image {self.image_ids[index]}"
                raise DataError(f"data: {self.source}: {which} has a damaged mask ({error})") from None
        return masks

    def count_objects(self) -> int:
        """Objects of all images."""
        return len(self._table.ids)

    def ground_truth(self) -> dict[str, Any]:
        """What is used of the annotations, in COCO's format, for an evaluator."""
        table = self._table
        images = [
            dict(id=id, file_name=name, height=height, width=width)
            for id, name, (height, width) in zip(
                self.image_ids, self._names, self._sizes.tolist(), strict=True
            )
        ]
        columns = [
            c.tolist() for c in (table.ids, table.images, table.labels, table.boxes, table.areas, table.crowd)
        ]
        annotations = [
            dict(
                id=id,
                image_id=self.image_ids[image],
                category_id=self.category_ids[label],
                bbox=box,
                area=area,
                iscrowd=int(crowd),
            )
            for id, image, label, box, area, crowd in zip(*columns, strict=True)
        ]
        if self.has_masks:
            for place, annotation in enumerate(annotations):
                annotation["segmentation"] = table.segmentation(place)
        categories = [
            dict(id=id, name=name) for id, name in zip(self.category_ids, self.classes, strict=True)
        ]
        return dict(images=images, annotations=annotations, categories=categories)


def open_coco(source: str, split: Split, classes: Sequence[str] | None = None) -> CocoImages:
    """Open one split of a folder with annotations in COCO format.

    Args:
        source: Folder with ``annotations/instances_<split>*.json`` and images in ``<split>*`` or
            ``images/<split>*``; or with ``<split>/_annotations.coco.json`` beside the images.
        split: ``"train"`` or ``"val"`` (or what it is called there: validation, valid or test).
        classes: The classes that labels count in; by default the categories in order of their ids.

    Raises:
        DataError: the split is missing or damaged, has other classes, or has no object to train on.
    """
    data = CocoImages(*find_annotations(Path(source), split), classes)
    if split == "train" and not data.count_objects():
        raise DataError(f"data: {data.source} has no objects to train on")
    return data


def _match_classes(records: Records, classes: Sequence[str] | None) -> tuple[list[str], list[int]]:
    """Names of the classes, and COCO's id of each."""
    id_of = {c["name"]: c["id"] for c in sorted(records.categories, key=lambda category: category["id"])}
    if classes is None:
        classes = list(id_of)
    unknown, missing = ([n for n in a if n not in b] for a, b in ((id_of, classes), (classes, id_of)))
    if unknown or missing:
        found = [
            f"{what}: {few(names)}" for what, names in (("unknown", unknown), ("missing", missing)) if names
        ]
        raise DataError(f"data: {records.path} has other categories than expected ({'; '.join(found)})")
    return list(classes), [id_of[name] for name in classes]
