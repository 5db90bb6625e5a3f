"""The CPU kernels, called with tensors: float32 inside, other dtypes are converted on the way in and out."""

import ctypes
from ctypes import Structure, byref, c_int32, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from v2m.ops.directional.arguments import PassInputs
from v2m.ops.kernels.build import library
from v2m.ops.scan.arguments import ScanInputs
from v2m.ops.scan_2d.arguments import Scan2dInputs

# The gradients of parameters are summed by strips of lines, which depend on the size of the map only, so that
# the result does not depend on the threads.
LINES_PER_STRIP, MOST_STRIPS = 4, 64
# In two dimensions images are few, so groups of channels are parts too: at least so many for all threads.
CHANNELS_PER_GROUP, FEWEST_PARTS = 16, 8


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
    """``ScanArguments`` of cpp/kernels.cpp."""

    _fields_ = (
        ("direction", _Direction),
        ("softplus", c_int32),
        ("has_low_rank", c_int32),
        ("is_geometric", c_int32),
        ("channels", c_int64),
        ("states", c_int64),
        ("rank", c_int64),
        *((name, _Map) for name in ("u", "delta", "B", "C", "gate")),
        *((name, c_void_p) for name in ("A", "D", "delta_weight", "delta_bias")),
        *((name, _Map) for name in ("y", "grad", "du", "ddelta", "dB", "dC", "dgate")),
        ("sums", c_void_p),
        ("strips", c_int64),
        ("parallel", c_void_p),
        ("threads", c_int64),
    )


class _PassArguments(Structure):
    """``PassArguments`` of cpp/kernels.cpp."""

    _fields_ = (
        ("scan", _ScanArguments),
        ("taps", c_int64),
        ("projects_B", c_int32),
        ("x", _Map),
        ("dx", _Map),
        ("conv_weight", c_void_p),
        ("conv_bias", c_void_p),
        ("proj_weight", c_void_p),
    )


class _Scan2dArguments(Structure):
    """``Scan2dArguments`` of cpp/scan_2d.cpp."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "height", "width", "channels", "states", "levels")),
        *(
            (name, c_int32)
            for name in ("is_coupled", "softplus", "reverse_row", "reverse_col", "is_geometric")
        ),
        ("u", _Map),
        *((name, _Map * 2) for name in ("delta", "B", "C", "coupling")),
        ("A", c_void_p * 2),
        *((name, _Map) for name in ("y", "grad", "du")),
        ("ddelta", _Map * 2),
        *((name, c_void_p) for name in ("map_sums", "rate_sums")),
        *((name, c_int64) for name in ("groups", "strips")),
        ("parallel", c_void_p),
        ("threads", c_int64),
    )


class _Pointers:
    """Hands out pointers into tensors, and holds on to these."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []

    def map(self, tensor: Tensor | None) -> _Map:
        """A channel-last map of any strides but that of the channels."""
        if tensor is None:
            return _Map()
        tensor = tensor.float()
        tensor = tensor if tensor.stride(-1) == 1 else tensor.contiguous()
        self._tensors.append(tensor)
        return _Map(tensor.data_ptr(), *tensor.stride()[:3])

    def both(self, row: Tensor, col: Tensor) -> Any:
        """The maps of both kinds of states."""
        return (_Map * 2)(self.map(row), self.map(col))

    def pointer(self, tensor: Tensor | None) -> int | None:
        """A parameter, or the partial sums of its gradient."""
        if tensor is None:
            return None
        tensor = tensor.float().contiguous()
        self._tensors.append(tensor)
        return tensor.data_ptr()


class _Call(_Pointers):
    """The arguments of one call along an axis."""

    def __init__(self, shape: torch.Size, axis: str, reverse: bool) -> None:
        super().__init__()
        batch, height, width, channels = shape
        is_column = axis == "col"
        lines = batch * (width if is_column else height)
        self.strips = min(MOST_STRIPS, -(-lines // LINES_PER_STRIP))
        self.common = dict(
            direction=_Direction(batch, height, width, is_column, reverse),
            channels=channels,
            strips=self.strips,
            parallel=openmp_parallel(),
            threads=torch.get_num_threads(),
        )


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=torch.float32)


def pass_forward(p: PassInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    y = _empty(p.x)
    call = _Call(p.x.shape, p.axis, p.reverse)
    arguments = _pass_arguments(call, p)
    arguments.scan.y = call.map(y)
    library().v2m_pass_forward(byref(arguments))
    return y.to(p.x.dtype)


def pass_backward(grad: Tensor, p: PassInputs) -> PassInputs:
    """The gradients of the tensors, given that of the output."""
    call = _Call(p.x.shape, p.axis, p.reverse)
    arguments = _pass_arguments(call, p)
    dx, dgate = _empty(p.x), _empty(p.gate)
    # All gradients of parameters side by side, in the order in which the C++ writes them.
    (channels, taps), (outputs, _), (_, rank) = p.conv_weight.shape, p.proj_weight.shape, p.delta_weight.shape
    widths = (p.A.numel() // channels, 1, taps, 1, outputs, rank, 1)
    sums = torch.empty(call.strips, channels * sum(widths))
    arguments.dx, arguments.scan.dgate = call.map(dx), call.map(dgate)
    arguments.scan.grad, arguments.scan.sums = call.map(grad), call.pointer(sums)
    library().v2m_pass_backward(byref(arguments))
    # Copies, for PyTorch wants each gradient in memory of its own.
    parts = [part.clone() for part in sums.sum(0).split([channels * width for width in widths])]
    dA, dD, dconv_weight, dconv_bias, dproj_weight, ddelta_weight, ddelta_bias = parts
    return p._replace(
        x=dx,
        gate=dgate,
        conv_weight=dconv_weight.view(channels, taps),
        conv_bias=dconv_bias,
        proj_weight=dproj_weight.view(channels, outputs).T,
        delta_weight=ddelta_weight.view(channels, rank),
        delta_bias=ddelta_bias,
        A=dA.view(p.A.shape),
        D=dD,
    )


def _pass_arguments(call: _Call, p: PassInputs) -> _PassArguments:
    return _PassArguments(
        scan=_ScanArguments(softplus=True, **_shared_arguments(call, p)),
        taps=p.conv_weight.shape[1],
        projects_B=p.selects == "B",
        x=call.map(p.x),
        conv_weight=call.pointer(p.conv_weight),
        conv_bias=call.pointer(p.conv_bias),
        proj_weight=call.pointer(p.proj_weight),
    )


def scan_forward(s: ScanInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    y = _empty(s.u)
    call = _Call(s.u.shape, s.axis, s.reverse)
    arguments = _scan_arguments(call, s)
    arguments.y = call.map(y)
    library().v2m_scan_forward(byref(arguments))
    return y.to(s.u.dtype)


def scan_backward(grad: Tensor, s: ScanInputs) -> ScanInputs:
    """The gradients of the tensors, given that of the output."""
    call = _Call(s.u.shape, s.axis, s.reverse)
    arguments = _scan_arguments(call, s)
    du, ddelta = _empty(s.u), _empty(s.u)
    dB, dC, dgate = (None if tensor is None else _empty(tensor) for tensor in (s.B, s.C, s.gate))
    rates, channels = s.A.numel(), s.u.shape[3]
    sums = torch.empty(call.strips, rates + channels)
    arguments.grad, arguments.dgate = call.map(grad), call.map(dgate)
    arguments.du, arguments.ddelta = call.map(du), call.map(ddelta)
    arguments.dB, arguments.dC = call.map(dB), call.map(dC)
    arguments.sums = call.pointer(sums)
    library().v2m_scan_backward(byref(arguments))
    dA, dD = (part.clone() for part in sums.sum(0).split([rates, channels]))
    return s._replace(
        u=du,
        delta=ddelta,
        A=dA.view(s.A.shape),
        B=dB,
        C=dC,
        D=None if s.D is None else dD,
        gate=dgate,
        delta_bias=None,
        delta_weight=None,
    )


def _scan_arguments(call: _Call, s: ScanInputs) -> _ScanArguments:
    return _ScanArguments(
        softplus=s.delta_softplus,
        u=call.map(s.u),
        delta=call.map(s.delta),
        B=call.map(s.B),
        C=call.map(s.C),
        **_shared_arguments(call, s),
    )


def _shared_arguments(call: _Call, x: ScanInputs | PassInputs) -> dict[str, Any]:
    """The arguments that a scan and a pass take alike."""
    return dict(
        has_low_rank=x.delta_weight is not None,
        is_geometric=x.A.dim() == 1,
        states=x.states,
        rank=0 if x.delta_weight is None else x.delta_weight.shape[1],
        gate=call.map(x.gate),
        A=call.pointer(x.A),
        D=call.pointer(x.D),
        delta_weight=call.pointer(x.delta_weight),
        delta_bias=call.pointer(x.delta_bias),
        **call.common,
    )


def scan_2d_forward(s: Scan2dInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    y = _empty(s.u)
    pointers = _Pointers()
    arguments = _scan_2d_arguments(pointers, s)
    arguments.y = pointers.map(y)
    library().v2m_scan_2d_forward(byref(arguments))
    return y.to(s.u.dtype)


def scan_2d_backward(grad: Tensor, s: Scan2dInputs) -> Scan2dInputs:
    """The gradients of the tensors, given that of the output."""
    batch, height, width, _ = s.u.shape
    strips = min(MOST_STRIPS, batch)
    pointers = _Pointers()
    arguments = _scan_2d_arguments(pointers, s)
    du, ddelta_row, ddelta_col = (_empty(s.u) for _ in range(3))
    map_sums = torch.empty(arguments.groups, batch, height, width, s.states, 6)
    rate_sums = torch.empty(strips, 2, *s.A_row.shape)
    arguments.strips = strips
    arguments.grad, arguments.du = pointers.map(grad), pointers.map(du)
    arguments.ddelta = pointers.both(ddelta_row, ddelta_col)
    arguments.map_sums, arguments.rate_sums = pointers.pointer(map_sums), pointers.pointer(rate_sums)
    library().v2m_scan_2d_backward(byref(arguments))
    # Copies, for PyTorch wants each gradient in memory of its own.
    of_rates = (x.clone() for x in rate_sums.sum(0))
    of_states = (x.clone() for x in map_sums.sum(0).unbind(-1))
    return s.with_tensors(du, ddelta_row, ddelta_col, *of_rates, *of_states)


def _scan_2d_arguments(pointers: _Pointers, s: Scan2dInputs) -> _Scan2dArguments:
    batch, height, width, channels = s.u.shape
    return _Scan2dArguments(
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        states=s.states,
        levels=s.levels,
        is_coupled=s.sweeps is None,
        softplus=s.delta_softplus,
        reverse_row=s.reverse_row,
        reverse_col=s.reverse_col,
        is_geometric=s.A_row.dim() == 1,
        u=pointers.map(s.u),
        delta=pointers.both(s.delta_row, s.delta_col),
        B=pointers.both(s.B_row, s.B_col),
        C=pointers.both(s.C_row, s.C_col),
        coupling=pointers.both(s.coupling_row, s.coupling_col),
        A=(c_void_p * 2)(pointers.pointer(s.A_row), pointers.pointer(s.A_col)),
        groups=min(-(-channels // CHANNELS_PER_GROUP), -(-FEWEST_PARTS // max(1, batch))),
        parallel=openmp_parallel(),
        threads=torch.get_num_threads(),
    )


@lru_cache
def openmp_parallel() -> int | None:
    """The address of GOMP_parallel in the OpenMP runtime that PyTorch is linked with, if it has one."""
    for path in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, c_void_p).value
        except (OSError, AttributeError):
            continue
    return None
