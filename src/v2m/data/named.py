"""The datasets that come by name, and what a model must know of each."""

from dataclasses import dataclass
from typing import Literal

from v2m.system.errors import DataError


@dataclass(frozen=True)
class DatasetInfo:
    """What a model must know of a dataset that comes by name.

    Attributes:
        img_size: Image height and width in pixels.
        in_chans: Image channels.
        mean: Mean of every channel over the training images, of values in 0..1.
        std: Standard deviation likewise.
        crop_scale: Least and largest share of an image that a random crop should keep.
        hflip: Probability of mirroring a training image; 0 where mirrored images are of no class.
        task: The task that it is for.
    """

    img_size: tuple[int, int]
    in_chans: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_scale: tuple[float, float]
    hflip: float
    task: Literal["classification", "segmentation"] = "classification"


DATASETS = {
    "digits": DatasetInfo((8, 8), 1, (0.305,), (0.376,), crop_scale=(0.9, 1.0), hflip=0.0),
    "fashion-mnist": DatasetInfo((28, 28), 1, (0.286,), (0.353,), crop_scale=(0.75, 1.0), hflip=0.5),
    "fashion-relations": DatasetInfo((40, 40), 1, (0.115,), (0.252,), crop_scale=(0.9, 1.0), hflip=0.0),
    "cifar10": DatasetInfo(
        (32, 32), 3, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), crop_scale=(0.5, 1.0), hflip=0.5
    ),
    "cifar100": DatasetInfo(
        (32, 32), 3, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), crop_scale=(0.5, 1.0), hflip=0.5
    ),
    "tiny-imagenet": DatasetInfo(
        (64, 64), 3, (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821), crop_scale=(0.35, 1.0), hflip=0.5
    ),
    "camvid": DatasetInfo(
        (360, 480),
        3,
        (0.4119, 0.4251, 0.4327),
        (0.3071, 0.3116, 0.3072),
        crop_scale=(0.3, 1.0),
        hflip=0.5,
        task="segmentation",
    ),
}
"""The datasets by name."""


def check_task(source: str, task: str) -> None:
    """See that a dataset is for a task, if it comes by name.

    Raises:
        DataError: it is for another one.
    """
    known = DATASETS.get(source)
    if known and known.task != task:
        raise DataError(f"data: {source} is for {known.task}, not for {task}: give --task {known.task}")
