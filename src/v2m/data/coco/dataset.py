"""Objects in images: boxes, masks and classes, annotated in COCO format."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from v2m.data.classes.named import Split
from v2m.data.coco.files import Records, find_annotations, read_records
from v2m.data.coco.masks import decode_mask, mask_api
from v2m.data.coco.paths import describe_missing, describe_moved, describe_shared, find_files
from v2m.data.coco.plausible import describe_misfits, describe_repeated, fit_as_corners, refuse_shares
from v2m.data.coco.table import Fault, make_table
from v2m.data.coco.values import ID, cut
from v2m.data.errors import UnreadableImageError
from v2m.data.images import fit_annotations, read_image, tell_hidden_turns
from v2m.data.transforms import apply
from v2m.system.errors import DataError, few, first_line, shown

MOST_OBJECTS = 2**15
"""Objects of an image: with more, a detector runs out of memory."""
MOST_MASK_PIXELS = 2**32
"""Pixels of all masks of an image, a byte each."""
FEW_IMAGES = 0.1
"""Share of the images that have objects in a set that has hardly any."""


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
        absent: A line on them, if there are any.
        faults: What is wrong with annotations.
        notes: A line for each kind of name that was taken for another.
        doubts: A line for each kind of annotation that can hardly be meant as it is.
        warnings: These lines, and one for each kind of thing that was mended or left out.
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
        self.notes = _name_classes_apart(records)
        self.classes, self.category_ids = _match_classes(records, classes)
        self.image_ids: list[int | str] = [image["id"] for image in records.images]
        self.transform: Callable[[Image.Image, Objects], Any] | None = None
        self._sizes = np.array([(image["height"], image["width"]) for image in records.images])
        self._table, self.faults = make_table(records, self.category_ids, masks)
        self.has_masks = bool(self._table.segments)
        if strict:
            _refuse_faults(path, self.faults)
        refuse_shares(path, self._table, self._sizes)
        names = [image["file_name"] for image in records.images]
        files = find_files(path, folder, names, allow_outside=allow_outside)
        self._names, self.missing = files.names, files.missing
        self.notes += [*_describe_ids(records), *describe_moved(path, folder, files)]
        self.notes += describe_shared(path, files)
        self.absent = describe_missing(path, folder, files)
        self.warnings = [*self.notes, *_describe_faults(records, self.faults), *self.absent]
        self.doubts = describe_repeated(self.source, self._table)
        if self.has_masks:
            self.doubts += describe_misfits(self.source, self._table, self._sizes)
        self.warnings += self.doubts
        self.warnings += tell_hidden_turns(self.source, len(self), self.name)

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
        table, places = self._table, self._table.of_image(index)
        self._refuse_crowded(index, places.stop - places.start)
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
                which = f"annotation {cut(self._table.ids[place])}"
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
            which = f"image {cut(self.image_ids[index])} ({shown(self._names[index])})"
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
        if self.has_masks:
            for place, annotation in enumerate(annotations):
                annotation["segmentation"] = table.segmentation(place)
        categories = [
            dict(id=id, name=name) for id, name in zip(self.category_ids, self.classes, strict=True)
        ]
        return dict(images=images, annotations=annotations, categories=categories)


def open_coco(
    source: str,
    split: Split,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    strict: bool = False,
    *,
    allow_outside: bool = False,
) -> CocoImages:
    """Open one split of a folder with annotations in COCO format.

    Args:
        source: Folder with ``annotations/instances_<split>*.json`` and images in ``<split>*`` or
            ``images/<split>*``; or with ``<split>/_annotations.coco.json`` beside the images.
        split: ``"train"`` or ``"val"`` (or what it is called there: validation, valid or test).
        classes: The classes that labels count in; by default the categories in order of their ids.
        masks: Whether masks are used, if the annotations have some; if not, they are not looked at.
        strict: Whether an annotation that cannot be used is an error, instead of being left out.
        allow_outside: Whether images may be outside of the folder, where their names lead there.

    Raises:
        DataError: the split is missing or damaged, has other classes, or has no object to train on.
    """
    annotations, folder = find_annotations(Path(source), split)
    data = CocoImages(annotations, folder, classes, masks, strict, allow_outside=allow_outside)
    if split == "train":
        data.warnings += _check_learnable(data)
    return data


def _check_learnable(data: CocoImages) -> list[str]:
    """What little there is to learn, in a line each.

    Raises:
        DataError: there is nothing.
    """
    counts, crowds = data.count_by_class(), sum(data.count_by_class(crowds=True))
    objects, images = sum(counts), data.count_images_with_objects()
    if not objects:
        reasons = [f"{crowds:,} are crowds (iscrowd 1), which are not trained on; one object has iscrowd 0"]
        left_out = [line.removeprefix(f"{data.source}: ") for line in data.warnings if data.faults]
        found = "; ".join([*(reasons if crowds else []), *left_out])
        raise DataError(f"data: {data.source} has no objects to train on{': ' if found else ''}{found}")
    lines = []
    if crowds > objects:
        lines.append(
            f"{data.source}: {crowds:,} of {crowds + objects:,} objects are crowds (iscrowd 1), which are "
            "not trained on; one object has iscrowd 0"
        )
    if images < FEW_IMAGES * len(data):
        lines.append(
            f"{data.source}: {images:,} of {len(data):,} images have objects, the others are background"
        )
    empty = [name for name, count in zip(data.classes, counts, strict=True) if not count]
    if empty:
        lines.append(
            f"{data.source}: {len(empty):,} of {len(counts):,} classes have no object to train on, and will "
            f"not be found: {few(empty)}; add some, or take the categories out of all files"
        )
    return lines


def _refuse_faults(path: Path, faults: Sequence[Fault]) -> None:
    fault = next((fault for fault in faults if fault.is_left_out), None)
    if fault:
        raise DataError(f"data: {path}: {fault.where} {fault.problem}")


def _describe_faults(records: Records, faults: Sequence[Fault]) -> list[str]:
    """A line for each kind: how many annotations have it, and the first."""
    kinds: dict[tuple[str, bool], list[Fault]] = {}
    for fault in faults:
        kinds.setdefault((fault.field, fault.is_left_out), []).append(fault)
    lines = []
    for (field, is_left_out), found in kinds.items():
        count = f"{len(found):,} of {len(records.annotations):,}"
        what = (
            f"annotations are left out for their {field}"
            if is_left_out
            else "boxes reach beyond their images and are cut"
        )
        line = f"{records.path}: {count} {what}, the first: {found[0].where} {found[0].problem}"
        if not is_left_out and fit_as_corners(records):
            line += (
                "; all boxes fit when read as left, top, right and bottom, but COCO's are left, top, width "
                "and height"
            )
        lines.append(line)
    return lines


def _describe_ids(records: Records) -> list[str]:
    """A line on ids of annotations that are there twice: they are names only, so all are kept."""
    ids = [ID.read(annotation.get("id")) for annotation in records.annotations]
    given = [id for id in ids if id is not None]
    twice = len(given) - len(set(given))
    if not twice:
        return []
    first = next(id for id, count in Counter(given).items() if count > 1)
    return [
        f"{records.path}: {twice:,} annotations have the id of another one, all are kept, the first: "
        f"{cut(first)}"
    ]


def _name_classes_apart(records: Records) -> list[str]:
    """Add their ids to names of categories that are there twice; a line that says so."""
    counts = Counter(category["name"] for category in records.categories)
    twice = [category for category in records.categories if counts[category["name"]] > 1]
    for category in twice:
        category["name"] += f" ({cut(category['id'])})"
    if not twice:
        return []
    told = few([category["name"] for category in twice])
    if len({category["name"] for category in records.categories}) < len(records.categories):
        raise DataError(f"data: {records.path} has category names twice, and others that are like {told}")
    return [f"{records.path}: categories of one name are kept apart by their ids: {told}"]


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
