"""V2M: Visual 2-Dimensional Mamba, a vision backbone that keeps images two-dimensional."""

__version__ = "0.1.0.dev0"
