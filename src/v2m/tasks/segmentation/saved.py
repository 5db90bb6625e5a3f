"""Trained segmentation models in folders; what a folder asks for is kept in bounds of work and memory."""

from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from v2m.tasks.model_folder import ModelFolder, check_task, load_state, loading, save_state
from v2m.tasks.names import CONFIG, SEGMENTATION
from v2m.tasks.saved_config import LARGEST_RESIZED
from v2m.tasks.saved_model import SavedModel
from v2m.tasks.segmentation.config import HeadConfig, InferenceConfig, InputConfig
from v2m.tasks.segmentation.evaluation import SegmentationEvaluator
from v2m.tasks.segmentation.model import STRIDE, Segmenter, check_installed
from v2m.tasks.typed import brief, typed

MOST_SCALES, LARGEST_SCALE = 32, 8
"""Bounds of what a saved model may ask for in evaluation."""


def save(model: nn.Module, evaluator: SegmentationEvaluator, path: Path) -> None:
    """Write weights and configuration, each file renamed into place when complete."""
    assert isinstance(model, Segmenter)
    input = evaluator.input
    config = dict(
        task=SEGMENTATION,
        **model.saved_config(),
        num_classes=model.num_classes,
        head=asdict(model.head),
        auxiliary=model.auxiliary_head is not None,
        label_names=evaluator.classes,
        pretrained_cfg=dict(input_size=(3, *input.crop), mean=input.mean, std=input.std),
        ignore_index=input.ignore_index,
        label_map=input.label_map,
        inference=asdict(evaluator.inference),
    )
    save_state(model.state_dict(), config, path)


def load(folder: ModelFolder) -> SavedModel[SegmentationEvaluator]:
    """The model in a folder that ``save`` wrote.

    Raises:
        DataError: it is a model for another task, or cannot be loaded.
        ValueError: a package that segmentation needs is missing.
    """
    check_installed()
    check_task(folder, SEGMENTATION, "a segmentation model")
    saved = folder.saved
    with loading(folder, file=CONFIG):
        evaluator = SegmentationEvaluator(saved.classes, _saved_input(folder), _saved_inference(folder))

    def build() -> Segmenter:
        return Segmenter(
            saved.architecture,
            saved.model_args,
            saved.num_classes,
            saved.images.input_size[1:],
            typed(HeadConfig, folder.config["head"], "head"),
            bool(folder.config["auxiliary"]),
        )

    return SavedModel(load_state(folder, build), evaluator, SEGMENTATION, saved.architecture, folder.path)


def _saved_input(folder: ModelFolder) -> InputConfig:
    """The images of a model; JSON has text for the keys of the label map."""
    config, images = folder.config, folder.saved.images
    label_map = config["label_map"]
    if label_map is not None:
        label_map = {int(value): label for value, label in label_map.items()}
    given = dict(ignore_index=config["ignore_index"], label_map=label_map)
    input = typed(InputConfig, given)
    return replace(input, crop_size=images.input_size[1:], mean=images.mean, std=images.std)


def _saved_inference(folder: ModelFolder) -> InferenceConfig:
    """How images are segmented, in bounds of work and memory."""
    saved = typed(InferenceConfig, folder.config["inference"], "inference")
    if saved.window is not None and (
        saved.window < STRIDE or 16 * (saved.stride or saved.window) < saved.window
    ):
        raise ValueError(
            f"inference has windows of {saved.window} pixels every {saved.stride or saved.window}, expected "
            f"at least {STRIDE} pixels, and a sixteenth of them from one to the next"
        )
    if len(saved.scales) > MOST_SCALES or max(saved.scales) > LARGEST_SCALE:
        raise ValueError(
            f"inference.scales is {brief(list(saved.scales))}, expected at most {MOST_SCALES} of up to "
            f"{LARGEST_SCALE}"
        )
    if (saved.short_side or 0) * max(saved.scales) > LARGEST_RESIZED:
        raise ValueError(
            f"inference.short_side is {saved.short_side}, expected images of up to {LARGEST_RESIZED} pixels"
        )
    return saved
