"""The V2M family, registered with timm when this package is imported."""

from v2m.models.config import V2MConfig
from v2m.models.plain import V2M
from v2m.models.registry import MODELS, v2m_micro, v2m_nano, v2m_small_patch16_224, v2m_tiny_patch16_224

__all__ = [
    "MODELS",
    "V2M",
    "V2MConfig",
    "v2m_micro",
    "v2m_nano",
    "v2m_small_patch16_224",
    "v2m_tiny_patch16_224",
]
