"""Objects in images: boxes, masks and classes, annotated in COCO format."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from v2m.data.coco.categories import match_classes, name_classes_apart
from v2m.data.coco.faults import describe_faults, describe_repeated_ids, refuse_faults
from v2m.data.coco.paths import describe_missing, describe_renamed, find_files
from v2m.data.coco.plausible import describe_misfits, describe_repeated, refuse_shares
from v2m.data.coco.records import read_records
from v2m.data.coco.segmentations import decode_mask, mask_api
from v2m.data.coco.table import make_table
from v2m.data.coco.values import cut
from v2m.data.errors import UnreadableImageError
from v2m.data.images import fit_annotations, read_image, tell_hidden_turns
from v2m.data.transforms import apply
from v2m.system.errors import DataError, first_line

MOST_OBJECTS = 2**15
"""Objects of an image: with more, a detector runs out of memory."""
MOST_MASK_PIXELS = 2**32
"""Pixels of all masks of an image, a byte each."""


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
        masks: Whether masks are used, if the annotations have some; if not, they are not looked at.
        strict: Whether an annotation that cannot be used is an error, instead of being left out.
        allow_outside: Whether images may be outside of the folder, where their names lead there.

    Attributes:
        source: The annotations, for messages.
        folder: Where the images are.
        classes: Names of the classes.
        category_ids: COCO's id of each class.
        image_ids: COCO's id of each image, in most files a number.
        missing: Images without a file, by the names in the annotations.
        left_over: Image files in the folder that are of no image, by their paths in it.
        absent: A line on them, if there are any.
        faults: What is wrong with annotations.
        renamings: A line for each kind of name that was taken for another.
        doubts: A line for each kind of annotation that can hardly be meant as it is.
        warnings: These lines, and one for each kind of thing that was mended or left out.
        notes: A line for each thing to know of it that is not odd.
        has_masks: Whether objects come with masks.
        transform: What ``[]`` makes of an image and its objects; None for the two themselves.

    Raises:
        DataError: the annotations are damaged, or are not of these classes.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        classes: Sequence[str] | None = None,
        masks: bool = True,
        strict: bool = False,
        *,
        allow_outside: bool = False,
    ) -> None:
        records = read_records(path)
        self.source, self.folder, self._is_strict = str(path), folder, strict
        self.transform: Callable[[Image.Image, Objects], Any] | None = None

        # Categories become classes first: annotations are read as labels of these.
        self.renamings = name_classes_apart(records)
        self.classes, self.category_ids = match_classes(records, classes)
        self.image_ids: list[int | str] = [image["id"] for image in records.images]
        self._sizes = np.array([(image["height"], image["width"]) for image in records.images])
        self._table, self.faults = make_table(records, self.category_ids, masks)
        self.has_masks = bool(self._table.segments)
        if strict:
            refuse_faults(path, self.faults)
        refuse_shares(path, self._table, self._sizes)

        # The files, only now: a folder of millions takes a while to list.
        names = [image["file_name"] for image in records.images]
        files = find_files(path, folder, names, allow_outside=allow_outside)
        self._names, self.missing, self.left_over = files.names, files.missing, files.left_over

        # What is told, from what was done about names to what is only doubtful.
        self.renamings += [*describe_repeated_ids(records), *describe_renamed(path, folder, files)]
        self.absent = describe_missing(path, folder, files)
        self.doubts = describe_repeated(self.source, self._table)
        if self.has_masks:
            self.doubts += describe_misfits(self.source, self._table, self._sizes)
        turns = tell_hidden_turns(self.source, len(self), self.name)
        faults = describe_faults(records, self.faults)
        self.warnings = [*self.renamings, *faults, *self.absent, *self.doubts, *turns]
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Any:
        image, objects = self.read(index), self.objects(index)
        if self.transform:
            return apply(self.transform, self.name(index), image, objects)
        return image, objects

    def name(self, index: int) -> str:
        """The path."""
        return str(self.folder / self._names[index])

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
            UnreadableImageError: a mask is damaged, or they are too many; a DataError where that is strict.
            ValueError: the library that decodes masks is not installed.
        """
        table, rows = self._table, self._table.of_image(index)
        self._refuse_crowded(index, rows.stop - rows.start)
        boxes = table.boxes[rows]
        return Objects(
            boxes=torch.from_numpy(np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])).float(),
            labels=torch.from_numpy(table.labels[rows].copy()),
            masks=self._decode(index, rows) if self.has_masks else None,
            crowd=torch.from_numpy(table.crowd[rows].copy()),
            areas=torch.from_numpy(table.areas[rows]).float(),
        )

    def _decode(self, index: int, rows: slice) -> Tensor:
        api, (height, width) = mask_api(), self.size(index)
        masks = torch.zeros(rows.stop - rows.start, height, width, dtype=torch.uint8)
        for row, mask in enumerate(masks.numpy(), rows.start):
            try:
                mask[:] = decode_mask(api, self._table.segmentation(row), height, width)
            except (ValueError, RuntimeError) as error:
                which = f"annotation {cut(self._table.ids[row])}"
                raise self._unusable(index, f"{which} has a damaged mask: {first_line(error)}") from None
        return masks

    def _refuse_crowded(self, index: int, count: int) -> None:
        height, width = self.size(index)
        if count > MOST_OBJECTS:
            raise self._unusable(index, f"has {count:,} objects, at most {MOST_OBJECTS:,} are read")
        if self.has_masks and count * height * width > MOST_MASK_PIXELS:
            most = f"the masks of at most {MOST_MASK_PIXELS:,} pixels in all are read"
            raise self._unusable(index, f"has {count:,} objects of {width}x{height} pixels, {most}")

    def _unusable(self, index: int, reason: str) -> DataError:
        """The error of an image whose annotations cannot be used."""
        if self._is_strict:
            which = f"image {cut(self.image_ids[index])} ({self._names[index]})"
            return DataError(f"data: {self.source}: {which}: {reason}")
        return UnreadableImageError(self.name(index), reason)

    def count_objects(self) -> int:
        """Objects of all images, and crowds."""
        return len(self._table.ids)

    def count_by_class(self, crowds: bool = False) -> list[int]:
        """Objects of each class in all images, or crowds."""
        labels = self._table.labels[self._table.crowd == crowds]
        return np.bincount(labels, minlength=len(self.classes)).tolist()

    def count_images_with_objects(self) -> int:
        """Images with an object that is no crowd."""
        return len(np.unique(self._table.images[~self._table.crowd]))

    def ground_truth(self) -> dict[str, Any]:
        """What is used of the annotations, in COCO's format, for an evaluator."""
        table = self._table
        images = [
            dict(id=id, file_name=name, height=height, width=width)
            for id, name, (height, width) in zip(
                self.image_ids, self._names, self._sizes.tolist(), strict=True
            )
        ]
        columns = [c.tolist() for c in (table.images, table.labels, table.boxes, table.areas, table.crowd)]
        annotations = [
            dict(
                id=id,
                image_id=self.image_ids[image],
                category_id=self.category_ids[label],
                bbox=box,
                area=area,
                iscrowd=int(crowd),
            )
            for id, image, label, box, area, crowd in zip(table.ids, *columns, strict=True)
        ]
        if self.has_masks:  # each is unpacked from bytes, so only where they are wanted
            for row, annotation in enumerate(annotations):
                annotation["segmentation"] = table.segmentation(row)
        categories = [
            dict(id=id, name=name) for id, name in zip(self.category_ids, self.classes, strict=True)
        ]
        return dict(images=images, annotations=annotations, categories=categories)
