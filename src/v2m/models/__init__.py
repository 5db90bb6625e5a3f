"""The V2M families, registered with timm when this package is imported."""

from v2m.models.config import HierarchicalV2MConfig, V2MConfig
from v2m.models.hierarchical import HierarchicalV2M
from v2m.models.plain import V2M
from v2m.models.pyramid import SimpleFeaturePyramid
from v2m.models.registry import MODELS

__all__ = [
    "MODELS",
    "V2M",
    "HierarchicalV2M",
    "HierarchicalV2MConfig",
    "SimpleFeaturePyramid",
    "V2MConfig",
]
