"""Segmentations in COCO files: polygons, run lengths, and run lengths as text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from v2m.data.coco.values import cut, read_numbers
from v2m.system.extras import how_to_install

LEAST_POLYGON = 6
"""Numbers of a triangle; what has fewer has no pixels."""
LONGEST_OUTLINE = 2**23
"""Pixels along the polygons of a mask: the library has some 40 bytes for each while it fills them."""

Mask = npt.NDArray[np.uint8]


def read_segmentation(segmentation: Any, height: int, width: int) -> Any:
    """A mask as ``decode_mask`` takes it. Text of runs is not looked into, since that is to decode it.

    Raises:
        ValueError: it is none of an image of this size.
    """
    if not segmentation:
        raise ValueError("has no segmentation, but others have one")
    if isinstance(segmentation, dict):
        return _read_runs(segmentation, height, width)
    if not isinstance(segmentation, list):
        raise ValueError("has a segmentation that is neither polygons nor runs")
    flat = read_numbers(segmentation)  # one polygon without the list around it
    polygons = []
    for given in [segmentation] if flat else segmentation:
        points = read_numbers(given)
        if points is None or len(points) % 2:
            raise ValueError(f"has a polygon that is no list of finite x and y: {cut(given)}")
        polygons.append(points)
    if max(map(len, polygons)) < LEAST_POLYGON:
        raise ValueError("has no polygon of three points or more")
    length = _outline(polygons)
    if length > LONGEST_OUTLINE:
        raise ValueError(
            f"has polygons with an outline of {length:,.0f} pixels, expected at most {LONGEST_OUTLINE:,}"
        )
    return polygons


def _outline(polygons: Sequence[Sequence[float]]) -> float:
    """Pixels along polygons, or a bound that is quickly found where that is within the limit."""
    # A quick bound is enough for usual polygons: all sides as long as the whole extent.
    most = sum(len(points) * (max(points) - min(points)) for points in polygons if points)
    if most <= LONGEST_OUTLINE:
        return most
    # Along each side the longer of its two extents, as the library steps from pixel to pixel.
    corners = [np.array(points, np.float64).reshape(-1, 2) for points in polygons if points]
    return float(sum(np.abs(points - np.roll(points, 1, 0)).max(1).sum() for points in corners))


def _read_runs(runs: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Runs and nothing else that is beside them in the file."""
    size, counts = runs.get("size"), runs.get("counts")
    if size != [height, width]:
        raise ValueError(f"has a mask of size {cut(size)}, expected that of its image, [{height}, {width}]")
    read = dict(size=[height, width], counts=counts)
    if isinstance(counts, str):  # only decoding shows whether it is damaged
        return read
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("has a mask whose counts are no list of whole numbers, nor text")
    if sum(counts) != height * width:
        raise ValueError(f"has a mask of {cut(sum(counts))} pixels, expected {height * width}")
    return read


def mask_api() -> Any:
    """What decodes masks.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from faster_coco_eval.core import mask  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise ValueError(f"masks need faster-coco-eval: {how_to_install('faster_coco_eval')}") from None
    return mask


def decode_mask(api: Any, segmentation: Any, height: int, width: int) -> Mask:
    """The pixels ``[H, W]`` of polygons, or of runs as a list or as text.

    Raises:
        ValueError or RuntimeError: the text is damaged.
    """
    mask: Mask = api.decode([_encode(api, segmentation, height, width)])[:, :, 0]
    return mask


def mask_box(api: Any, segmentation: Any, height: int, width: int) -> npt.NDArray[np.float64]:
    """Left, top, width and height of the pixels of a mask; all 0 where it has none.

    Raises:
        ValueError or RuntimeError: the text is damaged.
    """
    box: npt.NDArray[np.float64] = api.toBbox([_encode(api, segmentation, height, width)])[0]
    return box


def _encode(api: Any, segmentation: Any, height: int, width: int) -> Any:
    """A mask in compressed run lengths."""
    if isinstance(segmentation, list):
        polygons = [points for points in segmentation if len(points) >= LEAST_POLYGON]
        return api.merge(api.frPyObjects(polygons, height, width))
    if isinstance(segmentation["counts"], list):
        return api.frPyObjects(segmentation, height, width)
    return segmentation
