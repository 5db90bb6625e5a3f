"""The CPU kernels, called with tensors: float32 inside, other dtypes are converted on the way in and out."""

import ctypes
from ctypes import Structure, byref, c_int32, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from v2m.ops.kernels import PassInputs, ScanGradients, ScanInputs
from v2m.ops.kernels.build import library

STRIPS = 64  # groups of lines, each with a partial sum for the gradients of parameters


class _Map(Structure):
    _fields_ = (("data", c_void_p), ("batch", c_int64), ("row", c_int64), ("col", c_int64))


class _Direction(Structure):
    _fields_ = (
        ("batch", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("along_columns", c_int32),
        ("reverse", c_int32),
    )


class _ScanArguments(Structure):
    """``ScanArguments`` of cpp/scan.cpp."""

    _fields_ = (
        ("direction", _Direction),
        ("softplus", c_int32),
        ("has_low_rank", c_int32),
        ("channels", c_int64),
        ("states", c_int64),
        ("rank", c_int64),
        *((name, _Map) for name in ("u", "delta", "B", "C", "gate")),
        *((name, c_void_p) for name in ("A", "D", "delta_weight", "delta_bias")),
        *((name, _Map) for name in ("y", "grad", "du", "ddelta", "dB", "dC", "dgate")),
        ("dA", c_void_p),
        ("dD", c_void_p),
        ("strips", c_int64),
        ("parallel", c_void_p),
        ("threads", c_int64),
    )


class _PassArguments(Structure):
    """``PassArguments`` of cpp/scan.cpp."""

    _fields_ = (
        ("scan", _ScanArguments),
        ("taps", c_int64),
        ("projects_B", c_int32),
        ("x", _Map),
        ("conv_weight", c_void_p),
        ("conv_bias", c_void_p),
        ("proj_weight", c_void_p),
    )


class _ConvArguments(Structure):
    """``ConvArguments`` of cpp/conv.cpp."""

    _fields_ = (
        ("direction", _Direction),
        ("channels", c_int64),
        ("taps", c_int64),
        ("x", _Map),
        ("weight", c_void_p),
        ("bias", c_void_p),
        *((name, _Map) for name in ("y", "grad", "dx")),
        ("dweight", c_void_p),
        ("dbias", c_void_p),
        ("strips", c_int64),
        ("parallel", c_void_p),
        ("threads", c_int64),
    )


class _Call:
    """The arguments of one call, and the tensors they point into."""

    def __init__(self, shape: torch.Size, axis: str, reverse: bool) -> None:
        self._tensors: list[Tensor] = []
        batch, height, width, channels = shape
        is_column = axis == "col"
        self.strips = min(STRIPS, batch * (width if is_column else height))
        self.common = dict(
            direction=_Direction(batch, height, width, is_column, reverse),
            channels=channels,
            strips=self.strips,
            parallel=_openmp_parallel(),
            threads=torch.get_num_threads(),
        )

    def map(self, tensor: Tensor | None) -> _Map:
        """A channel-last map of any strides but that of the channels."""
        if tensor is None:
            return _Map()
        tensor = tensor.float()
        tensor = tensor if tensor.stride(-1) == 1 else tensor.contiguous()
        self._tensors.append(tensor)
        return _Map(tensor.data_ptr(), *tensor.stride()[:3])

    def pointer(self, tensor: Tensor | None) -> int | None:
        """A parameter, or the partial sums of its gradient."""
        if tensor is None:
            return None
        tensor = tensor.float().contiguous()
        self._tensors.append(tensor)
        return tensor.data_ptr()


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=torch.float32)


def pass_forward(p: PassInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    y = _empty(p.x)
    call = _Call(p.x.shape, p.axis, p.reverse)
    scan = _ScanArguments(
        softplus=True,
        has_low_rank=True,
        states=p.A.shape[1],
        rank=p.delta_weight.shape[1],
        gate=call.map(p.gate),
        A=call.pointer(p.A),
        D=call.pointer(p.D),
        delta_weight=call.pointer(p.delta_weight),
        delta_bias=call.pointer(p.delta_bias),
        y=call.map(y),
        **call.common,
    )
    arguments = _PassArguments(
        scan=scan,
        taps=p.conv_weight.shape[1],
        projects_B=p.selects == "B",
        x=call.map(p.x),
        conv_weight=call.pointer(p.conv_weight),
        conv_bias=call.pointer(p.conv_bias),
        proj_weight=call.pointer(p.proj_weight),
    )
    library().v2m_pass_forward(byref(arguments))
    return y.to(p.x.dtype)


def scan_forward(s: ScanInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    y = _empty(s.u)
    call = _Call(s.u.shape, s.axis, s.reverse)
    arguments = _scan_arguments(call, s)
    arguments.y = call.map(y)
    library().v2m_scan_forward(byref(arguments))
    return y.to(s.u.dtype)


def scan_backward(grad: Tensor, s: ScanInputs) -> ScanGradients:
    """The gradients of the inputs, given that of the output."""
    call = _Call(s.u.shape, s.axis, s.reverse)
    arguments = _scan_arguments(call, s)
    du, ddelta = _empty(s.u), _empty(s.u)
    dB, dC, dgate = (None if tensor is None else _empty(tensor) for tensor in (s.B, s.C, s.gate))
    dA = torch.empty(call.strips, *s.A.shape)
    dD = torch.empty(call.strips, s.A.shape[0])
    arguments.grad, arguments.dgate = call.map(grad), call.map(dgate)
    arguments.du, arguments.ddelta = call.map(du), call.map(ddelta)
    arguments.dB, arguments.dC = call.map(dB), call.map(dC)
    arguments.dA, arguments.dD = call.pointer(dA), call.pointer(dD)
    library().v2m_scan_backward(byref(arguments))
    return ScanGradients(du, ddelta, dA.sum(0), dB, dC, None if s.D is None else dD.sum(0), dgate)


def _scan_arguments(call: _Call, s: ScanInputs) -> _ScanArguments:
    return _ScanArguments(
        softplus=s.delta_softplus,
        has_low_rank=s.delta_weight is not None,
        states=s.A.shape[1],
        rank=0 if s.delta_weight is None else s.delta_weight.shape[1],
        u=call.map(s.u),
        delta=call.map(s.delta),
        B=call.map(s.B),
        C=call.map(s.C),
        gate=call.map(s.gate),
        A=call.pointer(s.A),
        D=call.pointer(s.D),
        delta_weight=call.pointer(s.delta_weight),
        delta_bias=call.pointer(s.delta_bias),
        **call.common,
    )


def conv_silu_forward(x: Tensor, weight: Tensor, bias: Tensor, axis: str, reverse: bool) -> Tensor:
    """The output ``[B, H, W, D]``."""
    y = _empty(x)
    call = _Call(x.shape, axis, reverse)
    arguments = _conv_arguments(call, x, weight, bias)
    arguments.y = call.map(y)
    library().v2m_conv_silu_forward(byref(arguments))
    return y.to(x.dtype)


def conv_silu_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, axis: str, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    call = _Call(x.shape, axis, reverse)
    arguments = _conv_arguments(call, x, weight, bias)
    dx = _empty(x)
    dweight, dbias = torch.empty(call.strips, *weight.shape), torch.empty(call.strips, *bias.shape)
    arguments.grad, arguments.dx = call.map(grad), call.map(dx)
    arguments.dweight, arguments.dbias = call.pointer(dweight), call.pointer(dbias)
    library().v2m_conv_silu_backward(byref(arguments))
    return dx, dweight.sum(0), dbias.sum(0)


def _conv_arguments(call: _Call, x: Tensor, weight: Tensor, bias: Tensor) -> _ConvArguments:
    return _ConvArguments(
        taps=weight.shape[1],
        x=call.map(x),
        weight=call.pointer(weight),
        bias=call.pointer(bias),
        **call.common,
    )


@lru_cache
def _openmp_parallel() -> int | None:
    """The address of GOMP_parallel in the OpenMP runtime that PyTorch is linked with, if it has one."""
    for path in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, c_void_p).value
        except (OSError, AttributeError):
            continue
    return None
