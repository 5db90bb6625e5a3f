"""What the families have in common: timm's backbone contract over a stem, a sequence of parts, and a head.

Shapes: B batch, C channels, H and W height and width of a map; maps are channel-last ``[B, H, W, C]``.
"""

import math
from dataclasses import fields, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
import torch.fx
from timm.layers import lecun_normal_, trunc_normal_
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from v2m.layers import MIXERS, Mixer, Stack
from v2m.layers.common import cast_for
from v2m.models.config import HierarchicalV2MConfig, V2MConfig
from v2m.models.former_words import FORMER_WORDS
from v2m.ops.arguments import described
from v2m.system.names import nearest

Config = TypeVar("Config", V2MConfig, HierarchicalV2MConfig)


class Backbone(nn.Module, Generic[Config]):
    """Base of the models. A family builds its stem and its parts, then calls ``_finish``.

    Subclasses name the module that takes images (``stem_name``) and the sequence of modules whose outputs are
    feature maps (``parts_name``), and turn images into a map (``_embed``).
    """

    stem_name: ClassVar[str]
    parts_name: ClassVar[str]

    output_fmt: ClassVar[str] = "NHWC"
    """The layout of maps, as timm says it: channels last."""

    default_cfg: dict[str, Any]
    """timm's default configuration, set by ``timm.create_model``."""

    config: Config
    norm: nn.Module
    head: nn.Module
    num_features: int
    head_hidden_size: int
    feature_info: list[dict[str, Any]]

    def __init__(self, default: Config, config: Config | None, overrides: dict[str, Any]) -> None:
        super().__init__()
        _check_names(type(self).__name__, default, overrides)
        self.config = config = (config or default).with_arguments(overrides)
        self.in_chans = config.in_chans
        self.num_classes = config.num_classes
        self.global_pool = config.pool
        self.grad_checkpointing = False

    def _finish(self, norm: nn.Module, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Add norm and head, initialise, and move to the device."""
        self.norm = norm
        self.head_hidden_size = self.num_features
        self.head_drop: nn.Module = nn.Dropout(self.config.drop_rate)
        self.head = self._head()
        # Initialised before the move, so that a seed gives the same weights on every device.
        self.init_weights()
        self.to(device=device, dtype=dtype)

    def _drop_path_rates(self, depth: int) -> list[float]:
        """The drop-path rate of every block, rising from 0."""
        # On the CPU, so that they are numbers also for a model on the meta device.
        return torch.linspace(0, self.config.drop_path_rate, depth, device="cpu").tolist()

    @property
    def _stem(self) -> nn.Module:
        return getattr(self, self.stem_name)

    @property
    def _parts(self) -> nn.Sequential:
        return getattr(self, self.parts_name)

    def _embed(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _head(self) -> nn.Module:
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes > 0 else nn.Identity()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise as the paper's code does, with both step size biases drawn from 0.001..0.1.

        Everything is set, so that it also serves a model that was built on the meta device.
        """
        # PyTorch's own layers come first: the rest overrides some of what they set.
        for module in self.modules():
            if isinstance(module, _RESET):
                module.reset_parameters()
        for module in self._stem.modules():
            if isinstance(module, nn.Conv2d):
                lecun_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in self.parameters(recurse=False):  # position embedding and class tokens
            trunc_normal_(parameter, std=0.02)
        mixers = [module for module in self.modules() if isinstance(module, Mixer)]
        for mixer in mixers:
            mixer.reset_scan_parameters()
            # Every block adds to one residual stream: branches that start smaller keep its size, as in GPT-2.
            nn.init.kaiming_uniform_(mixer.out_proj.weight, a=math.sqrt(5))
            mixer.out_proj.weight.div_(math.sqrt(len(mixers)))
        if isinstance(self.head, nn.Linear):
            trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[B, num_classes]`` of images ``[B, in_chans, height, width]``."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised map ``[B, H, W, C]``; with a class token ``[B, H + 1, W + 1, C]``."""
        check_images(type(self).__name__, x, self.in_chans)
        return self._norm(self._parts(self._embed(x)), len(self._parts) - 1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the output of ``forward_features`` and classify it, or only pool it if ``pre_logits``."""
        x = self.head_drop(self._pool(x))
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps after chosen blocks (or stages), class tokens left out.

        Args:
            x: Images ``[B, in_chans, height, width]``.
            indices: The last n maps if a number, these maps if a list, every map if None.
            norm: Apply the final norm to every map that has its number of channels.
            stop_early: Do not run what comes after the last index.
            output_fmt: ``"NCHW"`` or ``"NHWC"``.
            intermediates_only: Return the maps without the final one.

        Returns:
            The maps, or the output of ``forward_features`` (after the last part run) and the maps.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(
                f"forward_intermediates: output_fmt is {output_fmt!r}, expected 'NCHW' or 'NHWC'"
            )
        take, last = feature_take_indices(len(self._parts), indices)
        check_images(type(self).__name__, x, self.in_chans)

        # Run part by part, to keep what lies between them. A stack recomputes its blocks here as well.
        x, kept = self._embed(x), {}
        parts = list(self._parts)[: last + 1 if stop_early else None]
        for i, part in enumerate(parts):
            x = self._parts.run(part, x) if isinstance(self._parts, Stack) else part(x)
            if i in take:
                kept[i] = self._norm(x, i) if norm else x

        # What timm expects: in the order of the indices, without class tokens, channels first.
        maps = [self._without_class_token(kept[i]) for i in take]
        if output_fmt == "NCHW":
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        return maps if intermediates_only else (self._norm(x, len(parts) - 1), maps)

    def _norm(self, x: Tensor, part: int) -> Tensor:
        """The final norm of the map after a part; the map itself if it has not the norm's channels."""
        fits = self.feature_info[part]["num_chs"] == self.num_features
        return self.norm(cast_for(self.norm, x)) if fits else x

    def _as_residual(self, x: Tensor) -> Tensor:
        """A map in the data type of the residual stream, float32 at least."""
        return x.to(torch.promote_types(next(self._stem.parameters()).dtype, torch.float32))

    def _pool(self, x: Tensor) -> Tensor:
        if not self.global_pool:
            return x
        x = self._without_class_token(x)
        return x.mean((1, 2)) if self.global_pool == "avg" else x.amax((1, 2))

    def _without_class_token(self, x: Tensor) -> Tensor:
        return x

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the chosen feature maps do not need; returns the indices kept."""
        take, last = feature_take_indices(len(self._parts), indices)
        setattr(self, self.parts_name, self._parts[: last + 1])
        self.set_grad_checkpointing(self.grad_checkpointing)  # a slice of a stack is a new one
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return take

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one (none for 0 classes), and the pooling if given."""
        if global_pool is not None:
            pool: Any = global_pool  # any text here: the configuration checks it
            self.global_pool = replace(self.config, global_pool=pool).pool
        self.num_classes = num_classes
        like = next(self._stem.parameters())
        self.head = self._head().to(like.device, like.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable
        for module in self.modules():
            if isinstance(module, Stack):
                module.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that take no weight decay, besides one-dimensional ones."""
        names = {name for name, _ in self.named_parameters(recurse=False)}  # embeddings
        for place, mixer in self.named_modules():
            if isinstance(mixer, Mixer):
                own = (name for name, _ in mixer.named_parameters())
                names |= {f"{place}.{name}" for name in own if name.rpartition(".")[2] in mixer.undecayed}
        return names


_RESET = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm2d, nn.RMSNorm, nn.LayerNorm)


@torch.fx.wrap
def check_images(owner: str, x: Tensor, channels: int) -> None:
    """Refuse inputs that are no images ``[B, channels, H, W]``.

    Raises:
        TypeError: they are not dense, or not floating point.
        ValueError: the shape is another.
    """
    if not isinstance(x, Tensor) or x.layout != torch.strided:
        got = f"of layout {x.layout}" if isinstance(x, Tensor) else described(x)
        raise TypeError(f"{owner}: input is {got}, expected a dense tensor of images")
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{owner}: input has shape {list(x.shape)}, expected images [B, {channels}, H, W]")
    if not (x.shape[2] and x.shape[3]):
        raise ValueError(f"{owner}: input has shape {list(x.shape)}, expected images of a pixel at least")
    if not x.is_floating_point():
        raise TypeError(f"{owner}: input has dtype {x.dtype}, expected floating point (normalised images)")


def _check_names(owner: str, config: V2MConfig | HierarchicalV2MConfig, overrides: dict[str, Any]) -> None:
    known = [field.name for field in fields(config)]
    for name in overrides:
        if name in FORMER_WORDS:
            raise TypeError(f"{owner}: no argument {name!r}, it is {FORMER_WORDS[name]} now")
        if name in known:
            continue
        if any(name in kind.settings() for kind in MIXERS.values()):
            raise TypeError(
                f"{owner}: no argument {name!r}: it is of the mixers' classes alone, not of models"
            )
        names = nearest(name, known)
        hint = f"the nearest is {names[0]!r}" if names else f"expected one of {', '.join(known)}"
        raise TypeError(f"{owner}: no argument {name!r}, {hint}")
