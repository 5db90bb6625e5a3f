"""Trained detectors in folders; what a folder asks for is kept in bounds of work and memory."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from v2m.tasks.detection.config import HeadConfig, InputConfig
from v2m.tasks.detection.evaluation import DetectionEvaluator
from v2m.tasks.detection.metrics import check_installed
from v2m.tasks.detection.model import Detector
from v2m.tasks.model_folder import ModelFolder, check_task, load_state, loading, save_state
from v2m.tasks.names import CONFIG, DETECTION
from v2m.tasks.saved_config import LARGEST_RESIZED
from v2m.tasks.saved_model import SavedModel
from v2m.tasks.typed import brief, typed

MOST_BOXES, MOST_PROPOSALS, MOST_DETECTIONS = 2**15, 2**13, 2**11
"""Most boxes of a level, and of an image, that a saved detector may ask for."""


def save(model: nn.Module, evaluator: DetectionEvaluator, path: Path) -> None:
    """Write weights and configuration, each file renamed into place when complete."""
    assert isinstance(model, Detector)
    input = model.input
    config = dict(
        task=DETECTION,
        **model.saved_config(),
        num_classes=model.num_classes,
        label_names=evaluator.classes,
        category_ids=evaluator.category_ids,
        pretrained_cfg=dict(input_size=(3, *model.img_size), mean=input.mean, std=input.std),
        input=dict(test_size=input.test_size, max_size=input.max_size),
        head=asdict(model.head),
    )
    save_state(model.state_dict(), config, path)


def load(folder: ModelFolder) -> SavedModel[DetectionEvaluator]:
    """The detector in a folder that ``save`` wrote.

    Raises:
        DataError: it is a model for another task, or cannot be loaded.
        ValueError: a package that detection needs is missing.
    """
    check_installed()
    check_task(folder, DETECTION, "a detector")
    saved = folder.saved
    with loading(folder, file=CONFIG):
        head = _saved_head(folder)
        input = _saved_input(folder)
        category_ids = _category_ids(folder.config["category_ids"], len(saved.classes))
    size = saved.images.input_size[1:]

    def build() -> Detector:
        return Detector(saved.architecture, saved.model_args, size, len(saved.classes), head, input)

    evaluator = DetectionEvaluator(saved.classes, category_ids, head.has_masks)
    return SavedModel(load_state(folder, build), evaluator, DETECTION, saved.architecture, folder.path)


def _saved_head(folder: ModelFolder) -> HeadConfig:
    """The detector, in bounds of work and memory."""
    head = typed(HeadConfig, folder.config["head"], "head")
    for name, found, most in (
        ("pre_nms_top_n", head.pre_nms_top_n[1], MOST_BOXES),
        ("post_nms_top_n", head.post_nms_top_n[1], MOST_PROPOSALS),
        ("detections", head.detections, MOST_DETECTIONS),
    ):
        if found > most:
            raise ValueError(f"head.{name} is {found:,} in evaluation, expected at most {most:,}")
    return head


def _saved_input(folder: ModelFolder) -> InputConfig:
    """The images of a model."""
    images, sizes = folder.saved.images, folder.config["input"]
    given = dict(test_size=sizes["test_size"], max_size=sizes["max_size"], min_size=[sizes["test_size"]])
    input = typed(InputConfig, given, "input")
    if input.max_size > LARGEST_RESIZED:
        raise ValueError(f"input.max_size is {input.max_size}, expected at most {LARGEST_RESIZED}")
    return replace(input, mean=images.mean, std=images.std)


def _category_ids(values: Any, classes: int) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"category_ids is {brief(values)}, expected whole numbers")
    if len(values) != classes:
        raise ValueError(f"category_ids has {len(values)} numbers, expected {classes}")
    return values
