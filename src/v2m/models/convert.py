"""Checkpoints of the released code, and of other sizes, as state dicts of our models."""

import argparse
import math
import pathlib
import pickle
import re
from typing import Any

import torch
from torch import Tensor

from v2m.models.config import SMALL, TINY, V2MConfig
from v2m.models.plain import V2M, _resized

_RENAMED = ((r"^module\.", ""), (r"^layers\.", "blocks."), (r"^norm_f\.", "norm."))


def checkpoint_filter_fn(state_dict: dict[str, Any], model: V2M) -> dict[str, Tensor]:
    """Rename a released state dict to our keys and resize its position embedding to ``model``.

    Ours pass through. Training checkpoints (``{"model": ...}``) and the prefixes of data parallel training are
    unwrapped.
    """
    renamed = rename_released_keys(state_dict)
    for name in ("pos_embed", "cls_row", "cls_col"):
        target = getattr(model, name, None)
        if name in renamed and target is not None:
            renamed[name] = _resized(_as_map(renamed[name]), target.shape[1], target.shape[2])
    return renamed


def rename_released_keys(state_dict: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a released checkpoint under our names; our own names are kept."""
    state_dict = state_dict.get("model", state_dict)
    renamed = {}
    for key, value in state_dict.items():
        for pattern, replacement in _RENAMED:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _as_map(pos_embed: Tensor) -> Tensor:
    """A position embedding ``[1, L, C]`` of a square grid as ``[1, H, W, C]``."""
    if pos_embed.ndim == 4:
        return pos_embed
    side = math.isqrt(pos_embed.shape[1])
    return pos_embed.reshape(1, side, side, -1)


def read_released_checkpoint(path: str | pathlib.Path) -> dict[str, Tensor]:
    """Read a checkpoint of the released code without running code from it.

    The options that the released training loop pickles along (``argparse.Namespace``, paths) are allowed; any
    other object makes the file unreadable.

    Raises:
        ValueError: the file is no PyTorch checkpoint, holds other objects, or holds no V2M.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace, pathlib.PosixPath, pathlib.WindowsPath]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a checkpoint of tensors and plain data ({reason})") from None
    state_dict = rename_released_keys(checkpoint) if isinstance(checkpoint, dict) else {}
    if "blocks.0.mixer.A_2_log" not in state_dict:
        raise ValueError(f"{path}: holds no V2M (no parameter layers.0.mixer.A_2_log)")
    return state_dict


def infer_config(state_dict: dict[str, Tensor]) -> V2MConfig:
    """The architecture of a released state dict (our names), read off its shapes."""
    patch, inner = state_dict["patch_embed.proj.weight"], state_dict["blocks.0.mixer.A_log"]
    embed_dim, in_chans, *patch_size = patch.shape
    depth = 1 + max(int(key.split(".")[1]) for key in state_dict if key.startswith("blocks."))
    pos_embed = state_dict.get("pos_embed")
    grid = (14, 14) if pos_embed is None else _as_map(pos_embed).shape[1:3]
    return V2MConfig(
        img_size=(grid[0] * patch_size[0], grid[1] * patch_size[1]),
        patch_size=(patch_size[0], patch_size[1]),
        in_chans=in_chans,
        num_classes=state_dict["head.bias"].shape[0] if "head.bias" in state_dict else 0,
        embed_dim=embed_dim,
        depth=depth,
        d_state=inner.shape[1],
        d_conv=state_dict["blocks.0.mixer.conv1d.weight"].shape[-1],
        expand=inner.shape[0] // embed_dim,
        dt_rank=state_dict["blocks.0.mixer.dt_proj.weight"].shape[1],
        directions="released",
        use_pos_embed=pos_embed is not None,
    )
