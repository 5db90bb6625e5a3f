"""The oracle: the pass as the paper writes it, by PyTorch's convolution and the oracle of the scan."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from v2m.ops.directional.arguments import PassInputs
from v2m.ops.scan.reference import selective_scan_reference


def directional_pass_reference(p: PassInputs) -> Tensor:
    """Convolution, projection, scan, skip and gate; see ``v2m.ops.directional_pass``."""
    dtype = torch.float64 if p.x.dtype == torch.float64 else torch.float32
    result_dtype = p.x.dtype
    tensors: dict[str, Any] = {n: v.to(dtype) for n, v in p._asdict().items() if isinstance(v, Tensor)}
    p = p._replace(**tensors)
    s = causal_conv_silu_reference(p.x, p.conv_weight, p.conv_bias, p.axis, p.reverse)
    scan = p.scan_inputs(s, F.linear(s, p.proj_weight))
    scan = scan._replace(delta=F.linear(scan.delta, p.delta_weight), delta_weight=None)
    return selective_scan_reference(scan).to(result_dtype)


def causal_conv_silu_reference(x: Tensor, weight: Tensor, bias: Tensor, axis: str, reverse: bool) -> Tensor:
    """Depthwise convolution of every line with ``weight [D, K]`` in the order of the scan, then SiLU."""
    channels, taps = weight.shape
    before, after = (0, taps - 1) if reverse else (taps - 1, 0)
    if reverse:
        weight = weight.flip(-1)
    if axis == "row":
        kernel, padding = weight.view(channels, 1, 1, taps), [0, 0, before, after]
    else:
        kernel, padding = weight.view(channels, 1, taps, 1), [0, 0, 0, 0, before, after]
    y = F.conv2d(F.pad(x, padding).permute(0, 3, 1, 2), kernel, bias, groups=channels)
    return F.silu(y.permute(0, 2, 3, 1))
