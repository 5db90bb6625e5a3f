"""Checkpoints of the released code, and of other sizes, as state dicts of our models."""

import argparse
import math
import pathlib
import re
import zipfile
from dataclasses import fields
from typing import Any

import timm
import torch
from torch import Tensor

from v2m.layers import Decay
from v2m.models.bounds import Contents, check_finite
from v2m.models.config import PLAIN, V2MConfig
from v2m.models.decay import check_decay
from v2m.models.plain import V2M, resized
from v2m.system.archives import check_stored
from v2m.system.errors import short

_OURS = re.compile(r"(module\.)?blocks\.")
# In this order: a prefix has to go before the name behind it is recognised.
_RENAMED = ((r"^module\.", ""), (r"^layers\.", "blocks."), (r"^norm_f\.", "norm."))


def checkpoint_filter_fn(state_dict: dict[str, Any], model: V2M) -> dict[str, Tensor]:
    """Rename a released state dict to our keys and resize its position embedding to ``model``.

    Ours pass through. Training checkpoints (``{"model": ...}``) and data parallel prefixes are unwrapped.
    """
    renamed = rename_released_keys(state_dict)
    check_decay(renamed, model)
    for name in ("pos_embed", "cls_row", "cls_col"):
        target = getattr(model, name, None)
        if name in renamed and target is not None:
            renamed[name] = resized(_as_map(renamed[name]), target.shape[1], target.shape[2])
    return renamed


def rename_released_keys(state_dict: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a released checkpoint under our names; our own names are kept."""
    state_dict = state_dict.get("model", state_dict)
    renamed = {}
    for name, value in state_dict.items():
        key = str(name)
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
    _check_file(pathlib.Path(path))
    try:
        with torch.serialization.safe_globals([argparse.Namespace, pathlib.PosixPath, pathlib.WindowsPath]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a broken pickle raises nearly anything
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds a {forbidden[1]}" if forbidden else type(error).__name__
        raise ValueError(f"{path}: not a checkpoint of tensors and plain data ({reason})") from None

    # Our own names would pass the renaming untouched, and get directions that they were not trained with.
    released = checkpoint.get("model", checkpoint) if isinstance(checkpoint, dict) else None
    if isinstance(released, dict) and any(_OURS.match(str(name)) for name in released):
        raise ValueError(
            f"{path}: holds the parameters of this package's own model, there is nothing to convert"
        )

    # The rates of a second pass are what tells V2M from other Mamba models.
    state_dict = rename_released_keys(released) if isinstance(released, dict) else {}
    if "blocks.0.mixer.A_2_log" not in state_dict:
        raise ValueError(f"{path}: holds no V2M (no parameter layers.0.mixer.A_2_log)")
    for name, value in state_dict.items():
        if not _is_plain(value):
            raise ValueError(f"{path}: {name[:60]!r} is no plain tensor, expected the parameters of a V2M")
    return state_dict


def _check_file(path: pathlib.Path) -> None:
    """See that a checkpoint is a regular file, and that reading it takes no more memory than it has bytes."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file, expected a checkpoint")
    try:
        check_stored(path)
    except (OSError, RuntimeError, zipfile.BadZipFile):
        return  # of the older format, which is no archive, or broken: PyTorch says what is wrong with it
    except ValueError as error:
        raise ValueError(
            f"{path}: holds data that may grow to more than the file has ({short(error)})"
        ) from None


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor that has all its numbers in memory: views may repeat one of them."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
        return False
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def convert_checkpoint(path: str | pathlib.Path) -> V2M:
    """The model in a checkpoint of the released code, with that code's numbers (``directions="released"``).

    Raises:
        ValueError: the file cannot be read, or holds parameters that are not of a plain V2M.
    """
    state_dict = read_released_checkpoint(path)
    try:
        config = infer_config(state_dict)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the parameters of a plain V2M ({short(error)})") from None
    # The registered model that is nearest, so that few arguments stand in the saved configuration.
    name, model_args = min(
        ((name, _differences(config, variant)) for name, variant in PLAIN.items()),
        key=lambda pair: len(pair[1]),
    )
    try:
        # Shapes in a file can ask for any size: the model is built without memory first, within bounds.
        with torch.device("meta"), Contents.of(state_dict).limit():
            timm.create_model(name, **model_args)
        model = timm.create_model(name, **model_args)
        model.load_state_dict(checkpoint_filter_fn(state_dict, model))
        check_finite(model.state_dict())
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the parameters of a plain V2M ({short(error)})") from None
    return model


def infer_config(state_dict: dict[str, Tensor]) -> V2MConfig:
    """The architecture of a released state dict (our names), read off its shapes."""
    patch, rates = state_dict["patch_embed.proj.weight"], state_dict["blocks.0.mixer.A_log"]
    embed_dim, in_chans, patch_height, patch_width = patch.shape
    pos_embed = state_dict.get("pos_embed")
    # Without a position embedding nothing tells the size of images: the paper's, 14 patches of 16 pixels.
    grid_height, grid_width = (14, 14) if pos_embed is None else _as_map(pos_embed).shape[1:3]
    dt_rank = state_dict["blocks.0.mixer.dt_proj.weight"].shape[1]
    # Geometric rates do not tell the size of the state, but each pass selects one number for each state.
    selected = state_dict["blocks.0.mixer.x_proj.weight"].shape[0] - dt_rank
    blocks = {int(key.split(".")[1]) for key in state_dict if key.startswith("blocks.")}
    # One tensor may be of block 99999999: the number of blocks is what is there.
    if max(blocks) >= len(blocks):
        raise ValueError(f"it has {len(blocks)} blocks, but one of number {max(blocks)}")
    return V2MConfig(
        img_size=_square(grid_height * patch_height, grid_width * patch_width),
        patch_size=_square(patch_height, patch_width),
        in_chans=in_chans,
        num_classes=state_dict["head.bias"].shape[0] if "head.bias" in state_dict else 0,
        embed_dim=embed_dim,
        depth=len(blocks),
        d_state=selected,
        d_conv=state_dict["blocks.0.mixer.conv1d.weight"].shape[-1],
        expand=rates.shape[0] // embed_dim,
        dt_rank="auto" if dt_rank == math.ceil(embed_dim / 16) else dt_rank,
        decay=Decay.GEOMETRIC if rates.ndim == 1 else Decay.FREE,
        directions="released",
        use_pos_embed=pos_embed is not None,
    )


def _square(height: int, width: int) -> int | tuple[int, int]:
    return height if height == width else (height, width)


def _differences(config: V2MConfig, variant: V2MConfig) -> dict[str, Any]:
    """The fields of ``config`` that are not as in ``variant``."""
    pairs = ((f.name, getattr(config, f.name), getattr(variant, f.name)) for f in fields(V2MConfig))
    return {name: value for name, value, default in pairs if value != default}
