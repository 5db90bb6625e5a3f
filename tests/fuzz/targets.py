"""What is fuzzed: valid files, and the command or function that reads them."""

import contextlib
import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tests.conftest import make_image_folder
from tests.data.formats import as_tars, as_webdataset
from tests.fuzz.mutations import change_folder
from tests.fuzz.operators import compare_operators
from tests.tasks.detection.coco import write_coco
from tests.tasks.detection.models import INPUT, TINY, tiny_head
from tests.tasks.segmentation.conftest import make_masked_folder
from v2m import create_model
from v2m.cli import main
from v2m.cli.options import Parser
from v2m.cli.train import TrainOptions
from v2m.data import ImageSpec
from v2m.data.errors import UnreadableImageError
from v2m.data.images import read_image
from v2m.engine.resolve import resolve
from v2m.features.files import Features, write_features
from v2m.tasks import find_task
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.saved import save
from v2m.tasks.config import TrainConfig
from v2m.tasks.detection.config import DetectionConfig
from v2m.tasks.segmentation.config import SegmentationConfig

LONGEST_LINE, ERROR = 3000, "v2m: error: "
FORMATS = dict(png="PNG", jpg="JPEG", gif="GIF", tif="TIFF", webp="WEBP", bmp="BMP", ppm="PPM")
TINY_CLASSIFIER = dict(embed_dim=16, depth=2)


class RefusedError(Exception):
    """What was read is refused, in a line."""


class BadRefusalError(Exception):
    """It is refused, but not in a line that helps; or something harmful is printed."""


@dataclass(frozen=True)
class Target:
    """One thing that reads.

    Attributes:
        make: Writes valid files into a folder.
        run: Reads them: it returns, or raises ``RefusedError`` or, as functions do, ValueError or OSError.
        change: Changes the files.
    """

    make: Callable[[Path], object]
    run: Callable[[Path, random.Random], object]
    change: Callable[[random.Random, Path], object] = change_folder


def command(*arguments: object) -> None:
    """Run ``v2m`` in this process.

    Raises:
        RefusedError: it fails, and says why in a line.
        BadRefusalError: it fails, and says nothing or more; or prints what steers a terminal.
    """
    with captured() as (out, errors):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    said = errors.getvalue()
    check_harmless(out.getvalue() + said)
    if code == 0:
        return
    # Before the error there may be lines that say what was being done, and notes.
    *before, last = said.splitlines() or [""]
    is_line = last.startswith(ERROR) and not any(line.startswith((ERROR, "Traceback")) for line in before)
    if not is_line or len(said) > LONGEST_LINE:
        raise BadRefusalError(f"exit code {code}: {said[-LONGEST_LINE:]!r}")
    raise RefusedError(said)


@contextlib.contextmanager
def captured():
    """What is printed."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        yield out, errors


def check_harmless(text: str) -> None:
    """See that nothing is printed that steers a terminal."""
    odd = re.search(
        r"[^\S \n\r\t\xa0\u3000]|[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text
    )
    if odd:
        raise BadRefusalError(f"prints {odd[0]!r}: {text[max(0, odd.start() - 80) : odd.end() + 80]!r}")


def resolved(config: TrainConfig):
    """The task of a run."""
    task = find_task(config.task or "classification")
    return task(task.resolve(config))


def read_splits(config: TrainConfig) -> None:
    """Open the data of a run, and read images of both splits with their transforms."""
    task = resolved(config)
    task.open_data(check_harmless)
    for data in (task.train_data, task.val_data):
        for index in range(min(len(data), 50)):
            with contextlib.suppress(UnreadableImageError):
                data[index]


def classification(folder: Path) -> ClassificationConfig:
    return ClassificationConfig(data=str(folder / "images"), data_dir=str(folder / "cache"))


def detection(folder: Path) -> DetectionConfig:
    model = dict(model="v2m_lite_nano", model_args=TINY, input=INPUT, head=tiny_head())
    return DetectionConfig(data=str(folder / "data"), **model)


def segmentation(folder: Path) -> SegmentationConfig:
    return SegmentationConfig(data=str(folder / "data"), model_args=TINY)


def make_settings(folder: Path) -> None:
    """A configuration, and the folder of a run that can be continued."""
    (folder / "images").mkdir()
    (folder / "run").mkdir()
    plain = json.loads(json.dumps(asdict(resolved(classification(folder)).config))) | dict(output=None)
    plain["model_args"] = TINY_CLASSIFIER | dict(directions="corners")
    for path in (folder / "config.yaml", folder / "run" / "train.yaml"):
        path.write_text(yaml.safe_dump(plain, sort_keys=False))


def parse_settings(folder: Path, rng: random.Random) -> None:
    """Parse a configuration as ``v2m train`` does."""
    file = str(folder / "config.yaml")
    group = rng.choice(("model_args", "optimizer", "schedule", "input", "loss"))
    ways = (["--config", file], ["--resume", str(folder / "run")], [f"--{group}", file, "--data", "digits"])
    with captured() as (_, errors), contextlib.suppress(SystemExit):
        resolve(TrainOptions.parse(Parser("train"), rng.choice(ways)).training)
    said = errors.getvalue()
    check_harmless(said)
    if said.count("\n") > 1 or len(said) > LONGEST_LINE:
        raise BadRefusalError(repr(said[-LONGEST_LINE:]))
    if said:
        raise RefusedError(said)


def make_run(folder: Path) -> None:
    """A run of three epochs that is stopped after two."""
    images, output = make_image_folder(folder), str(folder / "run")
    small = ["--model", "v2m_nano", f"--model_args={json.dumps(TINY_CLASSIFIER)}", "--batch_size", "12"]
    with captured():
        for epochs, more in ((2, ["--output", output, *small]), (3, ["--resume", output])):
            main(["train", "--data", str(images), "--epochs", str(epochs), *more])


def resume_run(folder: Path, rng: random.Random) -> None:
    """Go on, or evaluate."""
    run = folder / "run"
    command(
        *rng.choice((["train", "--resume", run, "--epochs", 4], ["eval", run, "--data", folder / "images"]))
    )


def make_classifier(folder: Path) -> None:
    """A small classifier as it is saved, and an image."""
    model = create_model("v2m_nano", num_classes=3, img_size=16, **TINY_CLASSIFIER)
    (folder / "model").mkdir()
    spec = ImageSpec((16, 16), 3, (0.5,) * 3, (0.2,) * 3, 1.0, "bicubic")
    save(model, ClassificationEvaluator(["a", "b", "c"], spec), folder / "model")
    forget_sums(folder / "model")
    Image.new("RGB", (20, 16), "red").save(folder / "photo.png")


def forget_sums(folder: Path) -> None:
    """Leave out the sums of what is saved, since a stranger would make new ones."""
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}))


def make_task_model(folder: Path, config: TrainConfig) -> None:
    """A small model of a task as it is saved, and an image."""
    task = resolved(config)
    task.open_data(print)
    (folder / "model").mkdir()
    task.save(task.build(None), folder / "model")
    forget_sums(folder / "model")
    Image.new("RGB", (64, 48), "red").save(folder / "photo.png")


def make_detector(folder: Path) -> None:
    write_coco(folder / "data", dict(train=[(32, 40)], val=[(32, 40)]))
    make_task_model(folder, detection(folder))


def make_segmenter(folder: Path) -> None:
    (folder / "data").mkdir()
    make_masked_folder(folder / "data")
    make_task_model(folder, segmentation(folder))


def change_model(rng: random.Random, folder: Path) -> None:
    change_folder(rng, folder / "model")


def predict(folder: Path, rng: random.Random) -> None:
    """Apply a saved model to an image."""
    command(
        "predict",
        folder / "model",
        folder / "photo.png",
        "--output",
        folder / "out",
        *rng.choice(([], ["--json"])),
    )


def make_features(folder: Path) -> None:
    """Features of two splits."""
    rng = np.random.default_rng(0)
    model = dict(source="runs/a", architecture="v2m_nano", sha256="0" * 64)
    for split, count in (("train", 12), ("val", 6)):
        targets, index = np.arange(count) % 3, np.arange(count)
        vectors = rng.normal(size=(count, 4)).astype(np.float32)
        data = dict(source="images", split=split, images=count, sha256="0" * 64)
        facts = dict(model=model, data=data, classes=["a", "b", "c"], images={}, batch_size=4, unreadable=[])
        features = Features(vectors, targets, index, [f"{i}.png" for i in range(count)], facts)
        for suffix in ("npz", "parquet"):
            write_features(folder / f"{split}.{suffix}", features)


def probe(folder: Path, rng: random.Random) -> None:
    """Score features."""
    suffixes = (rng.choice(("npz", "parquet")) for _ in range(2))
    train, val = (
        folder / f"{split}.{suffix}" for split, suffix in zip(("train", "val"), suffixes, strict=True)
    )
    command("probe", "--train", train, "--val", val, "--output", folder / "out")


def make_coco(folder: Path) -> None:
    write_coco(folder / "data", dict(train=[(32, 40), (40, 24)], val=[(32, 40)]))


def make_masks(folder: Path) -> None:
    (folder / "data").mkdir()
    make_masked_folder(folder / "data")


def make_tars(folder: Path) -> None:
    """Tars of class folders."""
    (folder / "images").mkdir()
    as_tars(make_image_folder(folder / "made"), folder / "images")


def make_shards(folder: Path) -> None:
    """WebDataset shards."""
    as_webdataset(make_image_folder(folder / "made"), folder / "images")


def change_images(rng: random.Random, folder: Path) -> None:
    change_folder(rng, folder / "images")


def make_formats(folder: Path) -> None:
    """The same image in several formats and depths."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    for suffix, name in FORMATS.items():
        Image.fromarray(pixels).save(folder / f"image.{suffix}", name)
    Image.fromarray(pixels).quantize(7).save(folder / "palette.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    frames = [Image.fromarray(np.roll(pixels, i)) for i in range(3)]
    frames[0].save(folder / "frames.gif", save_all=True, append_images=frames[1:])


def read_formats(folder: Path, rng: random.Random) -> None:
    """Read each image file."""
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(UnreadableImageError):
            read_image(path)


TARGETS = {
    "settings": Target(make_settings, parse_settings),
    "run": Target(
        make_run, resume_run, lambda rng, folder: change_folder(rng, folder / "run", but=(".yaml",))
    ),
    "classifier": Target(make_classifier, predict, change_model),
    "detector": Target(make_detector, predict, change_model),
    "segmenter": Target(make_segmenter, predict, change_model),
    "features": Target(make_features, probe),
    "coco": Target(make_coco, lambda folder, rng: read_splits(detection(folder))),
    "masks": Target(make_masks, lambda folder, rng: read_splits(segmentation(folder))),
    "folders": Target(
        make_image_folder, lambda folder, rng: read_splits(classification(folder)), change_images
    ),
    "tars": Target(make_tars, lambda folder, rng: read_splits(classification(folder)), change_images),
    "shards": Target(make_shards, lambda folder, rng: read_splits(classification(folder)), change_images),
    "formats": Target(make_formats, read_formats),
    "operators": Target(
        lambda folder: None, lambda folder, rng: compare_operators(rng), lambda rng, folder: None
    ),
}
"""Everything that is fuzzed, by name."""
