"""V2M: Visual 2-Dimensional Mamba, a vision backbone that keeps images two-dimensional.

What there is for you:

- Models: ``create_model``, which is timm's, and ``list_models``. Their classes are ``V2M`` (plain: one grid)
  and ``HierarchicalV2M`` (four stages), with settings ``V2MConfig`` and ``HierarchicalV2MConfig``.
- ``load``: any trained model of any task, with its classes and ``predict``. ``train``: a training run.
- Mixers, the layers that mix the tokens of a map ``[B, H, W, C]``: ``V2MMixer`` is the paper's;
  ``SharedConvMixer``, ``ExactMixer``, ``RasterMixer``, ``LightMixer`` and ``AttentionMixer`` are others.
- Operators, functions of tensors: ``selective_scan`` along one axis of a map, ``selective_scan_2d`` along
  both, ``directional_pass`` for a whole pass of the mixer. ``use_implementation`` chooses their kernels.

Importing this package takes no time: what it has is imported when it is used. timm knows the models by name
once both are imported, in whichever order.
"""

from typing import TYPE_CHECKING

from v2m.models.variants import list_models
from v2m.system.imports import after_import, lazy_names

if TYPE_CHECKING:
    from v2m.layers.mixers import (
        AttentionMixer,
        ExactMixer,
        LightMixer,
        RasterMixer,
        SharedConvMixer,
        V2MMixer,
    )
    from v2m.models.config import HierarchicalV2MConfig, V2MConfig
    from v2m.models.create import create_model
    from v2m.models.hierarchical import HierarchicalV2M
    from v2m.models.plain import V2M
    from v2m.ops import directional_pass, selective_scan, selective_scan_2d, use_implementation
    from v2m.recipes.run import train
    from v2m.tasks.trained import load
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "v2m.layers.mixers": [
                "AttentionMixer",
                "ExactMixer",
                "LightMixer",
                "RasterMixer",
                "SharedConvMixer",
                "V2MMixer",
            ],
            "v2m.models.config": ["HierarchicalV2MConfig", "V2MConfig"],
            "v2m.models.create": ["create_model"],
            "v2m.models.hierarchical": ["HierarchicalV2M"],
            "v2m.models.plain": ["V2M"],
            "v2m.ops": ["directional_pass", "selective_scan", "selective_scan_2d", "use_implementation"],
            "v2m.recipes.run": ["train"],
            "v2m.tasks.trained": ["load"],
        },
        before=("timm", "v2m.ops", "v2m.layers"),
    )

__version__ = "0.1.0.dev0"
__all__ = [
    "V2M",
    "AttentionMixer",
    "ExactMixer",
    "HierarchicalV2M",
    "HierarchicalV2MConfig",
    "LightMixer",
    "RasterMixer",
    "SharedConvMixer",
    "V2MConfig",
    "V2MMixer",
    "__version__",
    "create_model",
    "directional_pass",
    "list_models",
    "load",
    "selective_scan",
    "selective_scan_2d",
    "train",
    "use_implementation",
]


def _register_models() -> None:
    import v2m.models.registry  # noqa: F401


after_import("timm", _register_models)
