"""A pass of the mixer: convolution, projection and selective scan along one axis of a feature map."""

from v2m.ops.directional.interface import directional_pass

__all__ = ["directional_pass"]
