"""The image folder of the fixture in other formats."""

import io
import shutil
import tarfile

import datasets

from v2m.data import open_dataset

datasets.disable_progress_bars()


def add(tar, name, content):
    """Add a file to an open tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_tar(path, files):
    """A tar of the files in a dict of names and bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            add(tar, name, content)


def images_of(folder):
    """Class and bytes of every image of a split, by class."""
    return [(path.parent.name, path.read_bytes()) for path in sorted(folder.glob("*/*.png"))]


def as_tars(source, root):
    """One tar per split, of class folders."""
    for split in ("train", "val"):
        files = {f"{name}/{i:03}.png": content for i, (name, content) in enumerate(images_of(source / split))}
        write_tar(root / f"{split}.tar", files)


def as_tar_shards(source, root):
    """Tars in a folder per split, every third image in each."""
    for split in ("train", "val"):
        pairs = images_of(source / split)
        for shard in range(3):
            files = {
                f"./{split}/{name}/{i:03}.png": data for i, (name, data) in enumerate(pairs) if i % 3 == shard
            }
            write_tar(root / split / f"{shard}.tar", files)


def as_webdataset(source, root, names=True):
    """Shards of keyed samples; labels are indices, with classes.txt if ``names``."""
    classes = sorted(path.name for path in (source / "train").iterdir())
    if names:
        root.mkdir(parents=True)
        (root / "classes.txt").write_text("\n".join(classes) + "\n")
    for split in ("train", "val"):
        pairs = images_of(source / split)
        for shard in range(2):
            files = {}
            for i, (name, content) in enumerate(pairs[shard::2]):
                files[f"{i:06}.png"] = content
                files[f"{i:06}.cls"] = str(classes.index(name)).encode()
                files[f"{i:06}.json"] = b"{}"
            write_tar(root / f"{split}-{shard:06}.tar", files)


def as_parquet(source, root, folder="data", validation="validation"):
    """Parquet files as the hub has them, two to train on."""
    classes = sorted(path.name for path in (source / "train").iterdir())
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=classes))
    (root / folder).mkdir(parents=True)
    for split, name, shards in (("train", "train", 2), ("val", validation, 1)):
        pairs = images_of(source / split)
        size = -(-len(pairs) // shards)
        for shard in range(shards):
            part = pairs[shard * size : (shard + 1) * size]
            columns = dict(
                image=[dict(bytes=content, path=f"{i}.png") for i, (_, content) in enumerate(part)],
                label=[classes.index(label) for label, _ in part],
            )
            rows = datasets.Dataset.from_dict(columns, features)
            rows.to_parquet(root / folder / f"{name}-{shard:05}-of-{shards:05}.parquet")


FORMATS = {
    "folder": shutil.copytree,
    "tars": as_tars,
    "tar shards": as_tar_shards,
    "webdataset": as_webdataset,
    "parquet": as_parquet,
}
"""Functions that write the image folder in each format."""


def contents(source, split, data_dir, classes=None):
    """Pixels and class name of all images of a split, sorted."""
    data = open_dataset(str(source), split, data_dir, classes)
    pairs = (data[i] for i in range(len(data)))
    return sorted((image.tobytes(), image.size, data.classes[target]) for image, target in pairs)
