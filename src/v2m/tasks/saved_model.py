"""A trained model, ready to use, whatever its task is."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import torch
from PIL import Image
from torch import Tensor, nn

from v2m.data.inputs import KINDS, ImageInput, is_image_input
from v2m.system.errors import DataError
from v2m.tasks.evaluation import Evaluator, predict_images
from v2m.tasks.predictions import Prediction

E = TypeVar("E", bound=Evaluator)


@dataclass(frozen=True, repr=False)
class SavedModel(Generic[E]):
    """A trained model, as ``v2m.load`` gives it.

    Attributes:
        model: The model, in evaluation mode.
        evaluator: How it is evaluated and applied.
        task: What it is for: classification, detection or segmentation.
        name: Timm's name of the model, or of its backbone.
        folder: The folder that it is from; None where there is none.
    """

    model: nn.Module
    evaluator: E
    task: str
    name: str
    folder: Path | None = None

    def __repr__(self) -> str:
        where = f", from {self.folder}" if self.folder else ""
        return f"{type(self).__name__}({self.name} for {self.task}, {len(self.classes)} classes{where})"

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the model's outputs."""
        return self.evaluator.classes

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> "SavedModel[E]":
        """Move the model to a device, and return this."""
        self.model.to(device)
        return self

    def transforms(self, image: Image.Image) -> Tensor:
        """An image as ``model`` takes it in a batch (a detector: in a list) ``[C, H, W]``, on the CPU."""
        return self.evaluator.transform(image)

    @overload
    def predict(self, images: ImageInput, *, batch_size: int | None = None) -> Any: ...

    @overload
    def predict(self, images: Iterable[ImageInput], *, batch_size: int | None = None) -> list[Any]: ...

    def predict(self, images: Any, *, batch_size: int | None = None) -> Prediction | list[Prediction]:
        """Apply the model to images, with the numbers of ``v2m predict``.

        Args:
            images: One image or several, in a sequence or an iterator. An image is a path; an address of
                ``http`` or ``https``; a PIL image; an array ``[H, W]`` or ``[H, W, C]``; or a tensor
                ``[C, H, W]``. Arrays and tensors are of 8 bits, or floating point in 0..1, not normalised.
            batch_size: Images at once; by default 64, of a detector 8.

        Returns:
            For one image its ``ClassificationPrediction``, ``DetectionPrediction`` or
            ``SegmentationPrediction``; for several a list of these in the same order.

        Raises:
            DataError: an image cannot be read, or the model's output is infinite or NaN; the message names
                the image and its position.
            ValueError: ``batch_size`` is not positive.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        is_single = is_image_input(images)
        if not is_single and not isinstance(images, Iterable):
            raise DataError(
                f"images is of type {type(images).__name__}, expected {KINDS}, or several of these"
            )
        found = []
        outcomes = predict_images(
            self.model,
            self.evaluator,
            [images] if is_single else images,
            self.device,
            batch_size or self.evaluator.batch_size,
        )
        for position, (_, outcome) in enumerate(outcomes):
            if isinstance(outcome, DataError):
                raise outcome if is_single else DataError(f"images[{position}]: {outcome}")
            found.append(self.evaluator.result(outcome[1]))
        return found[0] if is_single else found
