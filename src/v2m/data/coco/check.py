"""Looks at every image of a dataset in COCO format, and at all its objects."""

import os
from pathlib import Path

from v2m.data.check.annotated import AnnotatedSplit, Look, fits, look_at
from v2m.data.check.facts import Facts
from v2m.data.check.problems import Problem
from v2m.data.coco.dataset import CocoImages
from v2m.data.coco.open import find_all_annotations
from v2m.data.errors import UnreadableImageError
from v2m.system.extras import missing


class ObjectsCheck:
    """The images of one split, to be looked at.

    Args:
        name: The name of the split.
        annotations: Its file.
        folder: The folder of its images.
        allow_outside: Whether images may be outside of it, where their names lead there.

    Attributes:
        name: As given.
        data: The images and their objects.

    Raises:
        DataError: the file is no COCO file, or none of its images is there.
    """

    def __init__(self, name: str, annotations: Path, folder: Path, *, allow_outside: bool = False) -> None:
        self.name = name
        self.data = CocoImages(annotations, folder, allow_outside=allow_outside)
        # Files may also have gone since the annotations were opened.
        self._missing = {
            index for index in range(len(self.data)) if not os.path.isfile(self.data.name(index))
        }
        if missing(["faster_coco_eval"]):  # boxes are checked without it
            self.data.has_masks = False

    def __len__(self) -> int:
        return len(self.data)

    def look(self, index: int) -> Look:
        """Look at an image, and at the masks of its objects."""
        height, width = self.data.size(index)
        if index in self._missing:
            return Look(Facts((0, 0), "", b"", "missing image", f"of {width}x{height} pixels"), [], {})
        look = look_at(self.data.name(index))
        if look.facts.mode and not fits(look, (width, height)):
            real = "{}x{}".format(*look.facts.size)
            look.problems.append(("size", f"is {real} pixels, the annotations say {width}x{height}"))
        try:
            self.data.objects(index)
        except UnreadableImageError as error:
            look.problems.append(("annotation", error.reason))
        return look

    def finish(self, looks: list[Look]) -> AnnotatedSplit:
        """The split, with what was seen of all images."""
        data, name = self.data, self.name
        problems = [
            Problem(name, None, kind, line.removeprefix(f"{data.source}: "))
            for kind, lines in (("names", data.renamings), ("doubtful", data.doubts))
            for line in lines
        ]
        for fault in data.faults:
            image = None if fault.image is None else data.name(fault.image)
            kind = "annotation" if fault.is_left_out else "beyond"
            problems.append(Problem(name, image, kind, f"{fault.where} {fault.problem}"))
        for file in data.left_over:
            path = str(data.folder / file)
            problems.append(Problem(name, path, "left-over image", "not in the annotations"))
        counts, crowds = data.count_by_class(), sum(data.count_by_class(crowds=True))
        empty = len(data) - data.count_images_with_objects()
        numbers = {"objects": sum(counts), "crowds": crowds, "images without objects": empty}
        by_class = dict(zip(data.classes, counts, strict=True))
        return AnnotatedSplit(name, data, looks, by_class, numbers, problems)


def find_object_checks(source: str, *, allow_outside: bool = False) -> list[ObjectsCheck]:
    """The splits of a folder in COCO format; none if it is in another one.

    Raises:
        DataError: it is in COCO format, but cannot be opened.
    """
    found = find_all_annotations(Path(source))
    return [ObjectsCheck(name, *paths, allow_outside=allow_outside) for name, paths in found.items()]
