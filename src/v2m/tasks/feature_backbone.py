"""Feature maps of strides 4, 8, 16 and 32 for detectors and decoders, from our models and timm's."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.format import Format, nhwc_to
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

from v2m.models.config import PLAIN
from v2m.models.convert import checkpoint_filter_fn
from v2m.models.plain import V2M
from v2m.models.pyramid import STRIDES, SimpleFeaturePyramid
from v2m.system.errors import short
from v2m.system.network import DOWNLOAD, bounded
from v2m.tasks.model_folder import ModelFolder, load_classifier, read_folder, read_weights
from v2m.tasks.names import CLASSIFICATION, TIMM
from v2m.tasks.saved_config import check_model_args
from v2m.tasks.timm_models import has_timm_weights, image_args

PYRAMID = "model.scales."
"""How names of the parameters of a simple feature pyramid begin."""


class FeatureBackbone(nn.Module):
    """A timm model that gives four feature maps.

    The maps of hierarchical models have the strides 4, 8, 16 and 32. Our plain models have a single stride.
    They either get those four from the simple feature pyramid of ViTDet, or give the maps of four blocks,
    evenly spread over their depth, at their own stride.

    Args:
        name: timm's name of the model.
        model_args: Its arguments.
        img_size: Height and width of training images in pixels.
        in_chans: Channels of the images.
        is_pretrained: Whether to start from timm's weights.
        pyramid: Whether plain models get a feature pyramid of strides 4 to 32.
        maps: How many of the four maps to give; the finest ones are left out.

    Raises:
        ValueError: the model has no such maps, takes no such argument, or timm's weights cannot be had.
    """

    def __init__(
        self,
        name: str,
        model_args: dict[str, Any],
        img_size: tuple[int, int],
        in_chans: int = 3,
        is_pretrained: bool = False,
        pyramid: bool = True,
        maps: int = len(STRIDES),
    ) -> None:
        super().__init__()
        check_model_args(model_args)
        self.name, self._model_args = name, model_args
        self._whole_args = image_args(name, img_size, in_chans) | model_args
        args = dict(self._whole_args)

        # Which maps to ask timm for.
        if name in PLAIN:
            depth = args.get("depth", PLAIN[name].depth)
            blocks = [depth * i // 4 - 1 for i in (1, 2, 3, 4)]
            args["out_indices"] = ([0, 1, 2, 3] if pyramid else blocks)[-maps:]
            if pyramid:
                args["feature_cls"] = SimpleFeaturePyramid
        else:
            args["out_indices"] = _strided_maps(name, model_args)[-maps:]

        # Build the model, with timm's weights where they are wanted.
        if is_pretrained and not has_timm_weights(name):
            raise ValueError(f"pretrained: timm has no weights of {name}, expected a run folder")
        try:
            with bounded(DOWNLOAD) if is_pretrained else nullcontext():
                self.model = timm.create_model(name, features_only=True, pretrained=is_pretrained, **args)
        except (TypeError, AssertionError) as error:
            raise ValueError(f"model_args: {short(error)}") from None
        except Exception as error:  # a download raises nearly anything
            if not is_pretrained:
                raise
            raise ValueError(
                f"pretrained: timm's weights of {name} cannot be loaded ({short(error)})"
            ) from None
        self.channels: list[int] = self.model.feature_info.channels()
        self.strides: list[int] = self.model.feature_info.reduction()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps ``[B, channels[i], H / strides[i], W / strides[i]]`` of images ``[B, in_chans, H, W]``.

        The heights and widths of the maps are rounded up.
        """
        maps = self.model(x)
        is_nhwc = getattr(self.model, "output_fmt", None) == Format.NHWC  # such as Swin
        return [nhwc_to(m, Format.NCHW) for m in maps] if is_nhwc else maps

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass, if the model supports it."""
        for module in self.model.modules():
            if hasattr(module, "grad_checkpointing"):
                module.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model itself excludes from weight decay."""
        # timm wraps some models for their features; then the names lie one module deeper.
        model = getattr(self.model, "model", self.model)
        names = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
        prefix = "model.model." if model is not self.model else "model."
        return {prefix + name for name in names}

    def layers(self) -> dict[str, int]:
        """The layer number of each parameter, counted from the stem as timm does for layer decay.

        Parameters that timm's whole model lacks, such as those of a pyramid, are left out.
        """
        # Only the whole model has timm's group_matcher, so it is built without memory to ask it.
        with torch.device("meta"):
            whole = timm.create_model(self.name, **self._model_args)
        places = group_with_matcher(
            whole.named_parameters(), whole.group_matcher(coarse=False), reverse=True, return_values=False
        )
        by_name = {_flat(name): layer for name, layer in places.items()}
        own = {name: _flat(_own_name(name)) for name, _ in self.named_parameters()}
        return {name: by_name[flat] for name, flat in own.items() if flat in by_name}

    def load(self, state: dict[str, Tensor], source: str) -> None:
        """Load weights that have the names of timm's whole model.

        A feature pyramid keeps its initial weights where ``state`` has none for it.

        Args:
            state: The weights by name.
            source: Where they come from, for errors.

        Raises:
            ValueError: a weight is missing or has another shape.
        """
        given = {_own_name(name): value for name, value in state.items()}
        whole = getattr(self.model, "model", None)
        if isinstance(whole, V2M):  # whose position embedding has the size of training images
            given = checkpoint_filter_fn(given, whole)
        given = {_flat(name): value for name, value in given.items()}
        found = {}
        for name, value in self.state_dict().items():
            other = given.get(_flat(_own_name(name)))
            if other is None and name.startswith(PYRAMID):
                continue
            if other is None or other.shape != value.shape:
                shape = "nothing" if other is None else list(other.shape)
                raise ValueError(f"pretrained: {source} has {shape} for {name}, expected {list(value.shape)}")
            found[name] = other
        self.load_state_dict(found, strict=False)

    def load_classifier(self, folder: ModelFolder) -> None:
        """Load the weights of a saved classifier.

        Raises:
            DataError: the classifier cannot be loaded.
            ValueError: its weights do not fit.
        """
        model = load_classifier(folder, "pretrained: ", **self._whole_args)
        self.load(model.state_dict(), str(folder.path))

    def saved_config(self) -> dict[str, Any]:
        """The entries of ``config.json`` that describe the backbone."""
        return dict(architecture=self.name, model_args=self._model_args)


class OnBackbone(nn.Module):
    """A model around a ``FeatureBackbone``.

    The engine calls the same methods on every model, those of timm's models. Here the backbone answers.
    """

    @property
    def _features(self) -> tuple[str, FeatureBackbone]:
        for name, part in self.named_modules():
            if isinstance(part, FeatureBackbone):
                return f"{name}.", part
        raise LookupError("the model has no FeatureBackbone")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks of the backbone in the backward pass."""
        self._features[1].set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay, in addition to the one-dimensional ones."""
        prefix, backbone = self._features
        return {prefix + name for name in backbone.no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """A function from a parameter's name to its layer, for layer decay. Heads are the last layer."""
        prefix, backbone = self._features
        layers = {prefix + name: layer for name, layer in backbone.layers().items()}
        last = max(layers.values()) + 1
        return lambda name: layers.get(name, last)

    def start_from(self, source: str | None) -> None:
        """Load the weights of the backbone from a folder, and of the other weights those that fit.

        Args:
            source: A run of any task with the same backbone, or the weights file in one. Nothing is loaded
                for None, nor for ``timm``: the backbone was built with timm's weights.

        Raises:
            DataError: the folder has no model that can be loaded.
            ValueError: its backbone is another one, or the weights do not fit.
        """
        if source is None or source == TIMM:
            return
        folder = read_folder(Path(source), "pretrained: ")
        backbone = self._features[1]
        name = folder.saved.architecture
        if name != backbone.name:
            raise ValueError(
                f"pretrained: {source} holds a {name}, but the model is {backbone.name}; give --model {name}"
            )
        if folder.task == CLASSIFICATION:
            backbone.load_classifier(folder)
            return
        state = read_weights(folder, "pretrained: ")
        own_prefix = folder.saved.backbone
        parts = {k.removeprefix(own_prefix): v for k, v in state.items() if k.startswith(own_prefix)}
        backbone.load(parts, source)
        # A head for other classes starts from all layers but its last one.
        own = self.state_dict()
        fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        self.load_state_dict(fitting, strict=False)

    def saved_config(self) -> dict[str, Any]:
        """The entries of ``config.json`` that describe the backbone."""
        prefix, backbone = self._features
        return dict(backbone=prefix, **backbone.saved_config())


def _strided_maps(name: str, model_args: dict[str, Any]) -> list[int]:
    """The indices of a model's maps with strides 4, 8, 16 and 32; the deepest where a stride is repeated."""
    try:
        with torch.device("meta"):
            strides = timm.create_model(name, features_only=True, **model_args).feature_info.reduction()
    except (TypeError, AssertionError) as error:
        raise ValueError(f"model_args: {short(error)}") from None
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise ValueError(f"model: {name} has no feature maps ({short(error)})") from None
    if not set(STRIDES) <= set(strides):
        raise ValueError(
            f"model: {name} has feature maps of strides {', '.join(map(str, strides))}, "
            f"expected {', '.join(map(str, STRIDES))}"
        )
    return [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]


def _own_name(name: str) -> str:
    """The name of a parameter in timm's whole model, without the modules that wrap that model."""
    return name.removeprefix("model.").removeprefix("model.")


def _flat(name: str) -> str:
    """A name that is equal for timm's feature models (``stages_0``) and whole models (``stages.0``)."""
    return name.replace(".", "_")
