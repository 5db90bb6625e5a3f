"""Models whose features are wanted: from a run, with timm's weights, or untrained."""

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from v2m.data import ImageSpec
from v2m.data.classes.division import Division, read_kept
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.classification.data import resolve_image_spec
from v2m.tasks.classification.model import build_classifier
from v2m.tasks.classification.saved import load
from v2m.tasks.model_folder import read_folder
from v2m.tasks.names import CONFIG, TIMM, run_of
from v2m.tasks.timm_models import model_defaults
from v2m.tasks.trained import find_folder

KINDS = (TIMM, "random")
"""What a source may begin with, before a slash and a timm name."""


class FrozenModel(NamedTuple):
    """A model in evaluation mode.

    Attributes:
        model: The model.
        source: Where it is from: a whole path, ``timm/NAME`` or ``random/NAME``.
        architecture: Its timm name.
        spec: The images that it takes.
        sha256: Hash of its configuration and weights.
        division: How the images are divided where they have no splits: as the run of the model did.
    """

    model: nn.Module
    source: str
    architecture: str
    spec: ImageSpec
    sha256: str
    division: Division = Division()


def open_frozen(source: str, data: str) -> FrozenModel:
    """Load or build a model whose features are wanted.

    Args:
        source: A run folder, or another name of a trained model as ``v2m.load`` takes it, such as
            ``hf-hub:OWNER/NAME`` or ``timm/NAME``; ``random/NAME`` for one that is not trained, to compare.
        data: The dataset; an untrained model is built for its images.

    Raises:
        ValueError: there is no such model, or no weights of it.
    """
    kind, _, name = source.partition("/")
    folder = None if kind in KINDS and name else find_folder(source)
    if folder is None:
        if kind not in KINDS:
            kind, name, source = TIMM, source, f"{TIMM}/{source}"
        pretrained, image_data = (TIMM, "") if kind == TIMM else (None, data)
        spec = resolve_image_spec(InputConfig(), image_data, model_defaults(name))
        # The same seed each time, so that an untrained model has the same hash and features again.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build_classifier(name, {}, 0, spec, pretrained).eval()  # for 0 classes: no head
        return FrozenModel(model, source, name, spec, _digest(model, name))
    model_folder = read_folder(folder)
    saved, path = load(model_folder), model_folder.path
    sha256 = _digest(saved.model, (path / CONFIG).read_text(encoding="utf-8"))
    kept = read_kept(run_of(path.resolve()))
    division = kept if kept and kept.is_of(data) else Division()
    return FrozenModel(saved.model, str(path.resolve()), saved.name, saved.evaluator.spec, sha256, division)


def _digest(model: nn.Module, about: str) -> str:
    """SHA-256 of a description and of all weights, by name."""
    digest = hashlib.sha256(about.encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.inference_mode()
def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """Pooled features before the head ``[B, D]`` in float32, or ``[0, 0]`` where there are no images.

    Raises:
        ValueError: the model does not pool its features.
    """
    # A batch of unreadable images is an empty tensor without channels: no model takes it.
    if not len(images):
        return torch.empty(0, 0)
    timm_model: Any = model
    features = timm_model.forward_head(timm_model.forward_features(images), pre_logits=True)
    if features.ndim != 2:
        raise ValueError(
            f"model: its features have shape {list(features.shape)}, expected [images, features]"
        )
    return features.float()
