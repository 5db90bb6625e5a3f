"""Small datasets in the layouts of the originals, and the facts of these."""

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from v2m.data.classes import cifar, tiny_imagenet
from v2m.data.masks import camvid
from v2m.data.originals import git_tree

WORDS = {"n02": "goldfish, Carassius auratus", "n01": "crane", "n03": "crane, bird"}


def _python2(value):
    """A value as Python 2 pickled it: text as bytes, arrays by NumPy's functions of then."""
    if isinstance(value, str | bytes):
        content = value.encode() if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(content)) + content
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key) + _python2(item) for key, item in value.items()) + b"u"
    shape = b"".join(map(_python2, value.shape))
    kind = b"cnumpy\ndtype\n(" + _python2("u1") + _python2(0) + _python2(1) + b"tR"
    kind += b"(" + _python2(3) + _python2("|") + b"NNN" + _python2(-1) * 2 + _python2(0) + b"tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + _python2(0) + b"t" + _python2("b")
    return (
        empty
        + b"tR("
        + _python2(1)
        + b"("
        + shape
        + b"t"
        + kind
        + b"I00\n"
        + _python2(value.tobytes())
        + b"tb"
    )


def pickled(value):
    """A file of CIFAR's."""
    return b"\x80\x02" + _python2(value) + b"."


def write_cifar(data_dir, name, monkeypatch, images=4):
    """CIFAR-10 or CIFAR-100 with a few images in each file; the images ``[N, 32, 32, 3]`` of each split."""
    known = cifar.CIFAR[name]
    folder = data_dir / known.original.folder
    folder.mkdir(parents=True)
    random, found, md5 = np.random.default_rng(0), {}, {}
    classes = [f"{name} class {number}" for number in range(3)]
    contents = {known.meta: {known.names: classes, "num_vis": 3072}}
    for split, files in known.files.items():
        pixels = random.integers(0, 256, (len(files), images, 3, 32, 32), dtype=np.uint8)
        found[split] = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for file, part in zip(files, pixels, strict=True):
            labels = [number % 3 for number in range(images)]
            contents[file] = {
                "batch_label": "part",
                known.labels: labels,
                "data": part.reshape(images, -1),
                "filenames": [f"{number}.png" for number in range(images)],
            }
    for file, content in contents.items():
        (folder / file).write_bytes(pickled(content))
        md5[file] = hashlib.md5((folder / file).read_bytes()).hexdigest()
    monkeypatch.setitem(cifar.CIFAR, name, replace(known, md5=md5))
    return found


def write_tiny_imagenet(data_dir, monkeypatch):
    """Tiny ImageNet with three classes, two images to train on and one to validate on of each."""
    root = data_dir / "tiny-imagenet-200"
    (root / "val" / "images").mkdir(parents=True)
    (root / "test" / "images").mkdir(parents=True)
    lines = []
    for number, identifier in enumerate(sorted(WORDS)):
        folder = root / "train" / identifier / "images"
        folder.mkdir(parents=True)
        (folder.parent / f"{identifier}_boxes.txt").write_text("a box\n")
        image = Image.new("RGB", (64, 64), (80 * number, 0, 9))
        for place in range(2):
            image.save(folder / f"{identifier}_{place}.JPEG")
        image.save(root / "val" / "images" / f"val_{number}.JPEG")
        image.save(root / "test" / "images" / f"test_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{identifier}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    (root / "wnids.txt").write_text("".join(f"{identifier}\n" for identifier in WORDS))
    words = WORDS | {"n00": "entity"}
    (root / "words.txt").write_text("".join(f"{key}\t{value}\n" for key, value in words.items()))
    monkeypatch.setattr(tiny_imagenet, "COUNTS", dict(train=6, val=3))
    return root


def write_camvid(data_dir, monkeypatch, size=(48, 36)):
    """CamVid with a few images in each split, of which the last value is unlabelled."""
    root = data_dir / "CamVid"
    images = dict(train=4, val=3, test=2)
    random = np.random.default_rng(0)
    for split, count in images.items():
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for place in range(count):
            values = random.integers(0, 12, (size[1] // 12, size[0] // 12), dtype=np.uint8)
            values = values.repeat(12, 0).repeat(12, 1)
            Image.fromarray(values).save(root / f"{split}annot" / f"{place}.png")
            Image.fromarray(np.stack([values * 20] * 3, -1)).save(root / split / f"{place}.png")
        (root / f"{split}.txt").write_text("/SegNet/CamVid/...\n")
    trees = {folder: git_tree(root / folder) for folder in camvid.ORIGINAL.trees}
    monkeypatch.setattr(camvid, "COUNTS", images)
    monkeypatch.setattr(camvid, "ORIGINAL", replace(camvid.ORIGINAL, trees=trees))
    return root


def served(original, url, archive: Path):
    """The facts of an original whose archive is this one, at another address."""
    md5 = original.file.md5 and hashlib.md5(archive.read_bytes()).hexdigest()
    file = replace(original.file, url=url, size=archive.stat().st_size, md5=md5)
    return replace(original, file=file)
