"""The V2M families. timm knows their names as soon as it is imported together with this package."""

from typing import TYPE_CHECKING

from v2m.models.variants import MODELS
from v2m.system.imports import lazy_names

if TYPE_CHECKING:
    from v2m.models.config import HierarchicalV2MConfig, V2MConfig
    from v2m.models.hierarchical import HierarchicalV2M
    from v2m.models.plain import V2M
    from v2m.models.pyramid import SimpleFeaturePyramid
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "v2m.models.config": ["HierarchicalV2MConfig", "V2MConfig"],
            "v2m.models.hierarchical": ["HierarchicalV2M"],
            "v2m.models.plain": ["V2M"],
            "v2m.models.pyramid": ["SimpleFeaturePyramid"],
        },
    )

__all__ = [
    "MODELS",
    "V2M",
    "HierarchicalV2M",
    "HierarchicalV2MConfig",
    "SimpleFeaturePyramid",
    "V2MConfig",
]
