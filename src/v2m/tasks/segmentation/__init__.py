"""Semantic segmentation: a class for every pixel."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from timm.task import TrainingTask
from torch import Tensor, nn

from v2m.data.loading import Images, collate_lists
from v2m.data.masks.dataset import MaskedImages
from v2m.data.masks.learnable import check_labels
from v2m.system.errors import DataError, few, short, shown
from v2m.tasks import hub
from v2m.tasks.saved_config import LARGEST_RESIZED
from v2m.tasks.segmentation.config import InferenceConfig, InputConfig, SegmentationConfig
from v2m.tasks.segmentation.data import open_train_data, open_val_data, resolve_input
from v2m.tasks.segmentation.head import STRIDE, Segmenter, check_installed, load
from v2m.tasks.segmentation.loss import SegmentationObjective
from v2m.tasks.segmentation.metrics import SegmentationResults
from v2m.tasks.task import Evaluator, Metric, SavedModel, Task
from v2m.tasks.typed import brief, typed

__all__ = ["Segmentation", "SegmentationEvaluator"]

NAME = "segmentation"
MOST_SCALES, LARGEST_SCALE = 32, 8
"""Bounds of what a saved model may ask for in evaluation."""


class SegmentationEvaluator(Evaluator):
    """How models for semantic segmentation are evaluated.

    Args:
        classes: Names of the classes.
        input: The images and masks, resolved.
        inference: How images are segmented.
    """

    collate = staticmethod(collate_lists)

    def __init__(self, classes: list[str], input: InputConfig, inference: InferenceConfig) -> None:
        self.classes, self.input, self.inference = classes, input, inference

    def open_data(self, source: str, data_dir: Path, *, allow_outside: bool = False) -> MaskedImages:
        """Validation images of their own sizes, and their labels; no file names any of them."""
        return open_val_data(source, self.input, self.classes)

    def with_options(self, options: dict[str, Any]) -> "SegmentationEvaluator":
        """This one with other settings of inference; a window of 0 is none, a new one has a new stride."""
        if "window" in options:
            options = dict(stride=None) | options | dict(window=options["window"] or None)
        if "scales" in options:
            options = options | dict(scales=tuple(options["scales"]))
        return SegmentationEvaluator(self.classes, self.input, replace(self.inference, **options))

    def results(self, data: Images) -> SegmentationResults:
        """Where pixels are counted."""
        return SegmentationResults(self.classes, self.inference, self.input.ignore_index, len(data))


class Segmentation(Task[SegmentationConfig]):
    """Semantic segmentation in one training run."""

    config_type = SegmentationConfig
    train_metric = Metric("pixel_accuracy", "accuracy")
    val_metrics = (Metric("miou", "mIoU"), Metric("pixel_accuracy", "accuracy"))

    @classmethod
    def resolve(cls, config: SegmentationConfig) -> SegmentationConfig:
        """Fill in the images and the model's arguments."""
        check_installed()
        return replace(
            config,
            model_args=hub.resolve_model_args(config.model, config.model_args, config.pretrained),
            input=resolve_input(config.input, config.model),
        )

    def open_data(self, warn: Callable[[str], None]) -> None:
        """Open both splits."""
        config = self.config
        train_data = open_train_data(config.data, config.input, config.augment, config.inference.short_side)
        self.classes = list(train_data.classes)
        if len(self.classes) < 2:
            raise DataError(f"data: {train_data.source} has the class {few(self.classes)} only, expected 2")
        self.evaluator = SegmentationEvaluator(self.classes, config.input, config.inference)
        val_data = self.evaluator.open_data(config.data, Path(config.data_dir))
        self.train_data, self.val_data = train_data, val_data
        for line in (*train_data.warnings, *val_data.warnings):
            warn(line)
        check_labels(train_data, True, warn)
        check_labels(val_data, False, warn)

    def build_model(self, pretrained: str | None) -> Segmenter:
        """A backbone with a decoder for the classes."""
        config = self.config
        model = Segmenter(
            config.model,
            config.model_args,
            len(self.classes),
            config.input.crop,
            config.head,
            auxiliary=config.loss.auxiliary > 0,
            is_pretrained=pretrained == hub.TIMM,
        )
        if pretrained not in (None, hub.TIMM):
            model.start_from(pretrained)
        return model

    def build_objective(self, model: nn.Module) -> TrainingTask:
        """Cross-entropy of the labelled pixels."""
        assert isinstance(model, Segmenter)
        return SegmentationObjective(model, self.config.loss, self.config.input.ignore_index)

    def count_right(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Labelled pixels whose best class is theirs."""
        is_labelled = targets != self.config.input.ignore_index
        return ((output.argmax(1) == targets) & is_labelled).sum(), is_labelled.sum()

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write weights and configuration."""
        assert isinstance(model, Segmenter)
        input = self.config.input
        config = dict(
            task=NAME,
            **model.saved_config(),
            label_names=self.classes,
            pretrained_cfg=dict(input_size=(3, *input.crop), mean=input.mean, std=input.std),
            ignore_index=input.ignore_index,
            label_map=input.label_map,
            inference=asdict(self.config.inference),
        )
        hub.save_model(model, config, folder)

    @classmethod
    def load_model(cls, path: Path) -> SavedModel:
        """Load a folder that ``save_model`` wrote, or the weights file in one."""
        check_installed()
        folder = hub.read_task_folder(path, NAME)
        saved = folder.saved
        try:
            evaluator = SegmentationEvaluator(saved.classes, _saved_input(folder), _saved_inference(folder))
        except hub.LOAD_ERRORS as error:
            raise DataError(
                f"{shown(str(path))}: the model cannot be loaded ({hub.CONFIG}: {short(error)})"
            ) from None
        return SavedModel(load(folder), saved.architecture, evaluator)


def _saved_input(folder: hub.Folder) -> InputConfig:
    """The images of a model; JSON has text for the keys of the label map."""
    config, images = folder.config, folder.saved.images
    label_map = config["label_map"]
    if label_map is not None:
        label_map = {int(value): label for value, label in label_map.items()}
    given = dict(ignore_index=config["ignore_index"], label_map=label_map)
    input = typed(InputConfig, given)
    return replace(input, crop_size=images.input_size[1:], mean=images.mean, std=images.std)


def _saved_inference(folder: hub.Folder) -> InferenceConfig:
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
