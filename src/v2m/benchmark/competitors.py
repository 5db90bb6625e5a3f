"""Ways to compute a selective scan: ours, plain PyTorch, and other packages.

Shapes: B batch, H and W the grid; or L cells of a line, M lines; D channels, N state size. A scan of a map is
one of M = B x (the other side of the grid) independent lines, which is what other packages take.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from v2m.ops import Axis, Implementation, selective_scan
from v2m.system.names import nearest


class Arguments(NamedTuple):
    """Tensors of a selective scan with softplus, in the order of ``selective_scan``.

    Maps ``[B, H, W, ..]``, or lines in the layout of a competitor. B or C is None for the constant 1.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor | None
    C: Tensor | None
    D: Tensor
    z: Tensor
    delta_bias: Tensor

    def present(self) -> dict[str, Tensor]:
        """Those that are not None, by name."""
        return {name: x for name, x in self._asdict().items() if x is not None}


@dataclass(frozen=True)
class ScanCase:
    """A scan of maps to compute: its arguments, the gradient of its output, and its direction."""

    arguments: Arguments
    grad: Tensor
    axis: Axis
    reverse: bool

    def change(self, change: Callable[[Tensor], Tensor]) -> "ScanCase":
        """This scan with every map changed."""
        maps = {name: change(x) for name, x in self.arguments.present().items() if x.ndim == 4}
        return replace(self, arguments=self.arguments._replace(**maps), grad=change(self.grad))

    def as_leaves(self, dtype: torch.dtype | None = None) -> "ScanCase":
        """This scan with arguments that gradients can be asked of, in ``dtype`` if given."""
        leaves = {k: x.detach().to(dtype).requires_grad_() for k, x in self.arguments.present().items()}
        return replace(self, arguments=self.arguments._replace(**leaves), grad=self.grad.to(dtype))

    def forward_backward(self, function: Callable[["ScanCase"], Tensor]) -> dict[str, Tensor]:
        """The output ``y`` of a function of this scan, and the gradients of its arguments by name."""
        # autograd.grad writes to no leaf: calls that are timed add nothing to gradients of the call before.
        present = self.arguments.present()
        y = function(self)
        grads = torch.autograd.grad(y, list(present.values()), self.grad)
        return {"y": y.detach(), **dict(zip(present, grads, strict=True))}


@dataclass(frozen=True)
class Competitor:
    """A way to compute a scan.

    Attributes:
        function: Computes a scan that is in this competitor's layout; the output is in the same layout.
        order: The layout: for each of its dimensions, whether it is cell (0), line (1) or channel (2). None
            for maps.
        package: What must be installed for it.
        needs_gpu: It runs on CUDA GPUs only.
    """

    function: Callable[[ScanCase], Tensor]
    order: tuple[int, int, int] | None = None
    package: str | None = None
    needs_gpu: bool = False

    def missing(self, device: torch.device) -> str | None:
        """What it lacks to run on a device, if anything."""
        if self.needs_gpu and device.type != "cuda":
            return "a CUDA GPU"
        if self.package and find_spec(self.package) is None:
            return f"the package {self.package}"
        return None

    def prepare(self, scan: ScanCase) -> ScanCase:
        """The scan in this competitor's layout, ready to take gradients. This is not timed."""

        def lay_out(x: Tensor) -> Tensor:
            return x if self.order is None else to_lines(x, scan).permute(self.order).contiguous()

        return scan.change(lay_out).as_leaves()

    def restore(self, results: dict[str, Tensor], scan: ScanCase) -> dict[str, Tensor]:
        """Results in this competitor's layout as the maps that they are for ``scan``."""
        if self.order is None:
            return results
        # Only maps were laid out: gradients of A, D and delta_bias have their shapes already.
        inverse = [self.order.index(i) for i in range(3)]
        return {k: to_map(x.permute(inverse), scan) if x.ndim == 3 else x for k, x in results.items()}


def to_lines(x: Tensor, scan: ScanCase) -> Tensor:
    """A map ``[B, H, W, D]`` as lines ``[L, M, D]``, cells in the order of the scan."""
    lines = x.permute(2, 0, 1, 3) if scan.axis == "row" else x.permute(1, 0, 2, 3)
    lines = lines.flatten(1, 2)
    return lines.flip(0) if scan.reverse else lines


def to_map(lines: Tensor, scan: ScanCase) -> Tensor:
    """The map of which ``to_lines`` makes these lines."""
    if scan.reverse:
        lines = lines.flip(0)
    x = lines.unflatten(1, (scan.grad.shape[0], -1))
    return x.permute(1, 2, 0, 3) if scan.axis == "row" else x.permute(1, 0, 2, 3)


def lean_loop(scan: ScanCase) -> Tensor:
    """The leanest loop in plain PyTorch: lines ``[L, M, D]``, one fused update per step."""
    return _lean_loop(scan.arguments)


def compiled_loop(scan: ScanCase) -> Tensor:
    """``lean_loop`` through ``torch.compile``, which unrolls it: every length L has a graph of its own."""
    return _compiled_lean_loop()(scan.arguments)


@cache
def _compiled_lean_loop() -> Callable[[Arguments], Tensor]:
    # Kept, since what torch.compile returns remembers its graphs; made late, since it is slow to import.
    return torch.compile(_lean_loop, dynamic=False)


def _lean_loop(s: Arguments) -> Tensor:
    x = s.u.float()
    dt = F.softplus(s.delta.float() + s.delta_bias)
    drives = (dt * x).unsqueeze(-1).unbind()
    Bs = None if s.B is None else s.B.float().unsqueeze(-2).unbind()
    Cs = None if s.C is None else s.C.float().unsqueeze(-1).unbind()
    h = x.new_zeros(*x.shape[1:], s.A.shape[1])
    ys = []
    # Slices by unbind have one backward for all of them; an index in the loop would have one each.
    for t, step in enumerate(dt.unsqueeze(-1).unbind()):
        drive = drives[t] if Bs is None else drives[t] * Bs[t]
        h = torch.addcmul(drive, torch.exp(step * s.A), h)
        ys.append(h.sum(-1) if Cs is None else (h @ Cs[t]).squeeze(-1))
    return _finish(torch.stack(ys), s.D, x, s)


def mamba_reference(scan: ScanCase) -> Tensor:
    """The loop as it is usually published: lines ``[M, D, L]``.

    It computes the decays of all cells first, and takes one by index in each step. That makes the backward
    quadratic in L, since the gradient of an index is as large as all decays.
    """
    s = scan.arguments
    x = s.u.float()
    dt = F.softplus(s.delta.float() + s.delta_bias[:, None])
    decays = torch.exp(torch.einsum("mdl,dn->mdln", dt, s.A))
    if s.B is None:
        drives = (dt * x).unsqueeze(-1).expand_as(decays)
    else:
        drives = torch.einsum("mdl,mnl->mdln", dt * x, s.B.float())
    h = torch.zeros_like(decays[:, :, 0])
    ys = []
    for t in range(x.shape[2]):
        h = decays[:, :, t] * h + drives[:, :, t]
        ys.append(h.sum(-1) if s.C is None else torch.einsum("mdn,mn->md", h, s.C[:, :, t].float()))
    return _finish(torch.stack(ys, dim=2), s.D[:, None], x, s)


def mambapy_scan(scan: ScanCase) -> Tensor:
    """The parallel scan of the package mambapy: lines ``[M, L, D]``."""
    s = scan.arguments
    # It is the recurrence alone: what enters and leaves the states is around it.
    pscan = import_module("mambapy.pscan").pscan
    x = s.u.float()
    dt = F.softplus(s.delta.float() + s.delta_bias)
    decays = torch.exp(dt.unsqueeze(-1) * s.A)
    drives = (dt * x).unsqueeze(-1)
    drives = drives.expand_as(decays) if s.B is None else drives * s.B.float().unsqueeze(2)
    h = pscan(decays, drives)
    y = h.sum(-1) if s.C is None else (h @ s.C.float().unsqueeze(-1)).squeeze(-1)
    return _finish(y, s.D, x, s)


def mamba_ssm_scan(scan: ScanCase) -> Tensor:
    """The CUDA kernel of the package mamba_ssm: lines ``[M, D, L]``."""
    kernel = import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    s = scan.arguments
    one = torch.ones_like(s.A)  # the kernel takes [D, N] for a B or C that is the same in every cell
    B, C = one if s.B is None else s.B, one if s.C is None else s.C
    return kernel(s.u, s.delta, s.A, B, C, s.D, s.z, s.delta_bias, delta_softplus=True)


def _finish(y: Tensor, D: Tensor, x: Tensor, s: Arguments) -> Tensor:
    """What ends a scan: ``(y + D x) silu(z)``, in the data type of ``u``."""
    return ((y + D * x) * F.silu(s.z.float())).to(s.u.dtype)


def our_scan(scan: ScanCase, implementation: Implementation | None = None) -> Tensor:
    """``selective_scan``, by the implementation for the device or by a named one."""
    return selective_scan(
        *scan.arguments,
        delta_softplus=True,
        axis=scan.axis,
        reverse=scan.reverse,
        implementation=implementation,
    )


COMPETITORS = {
    "ours": Competitor(our_scan),
    "reference": Competitor(partial(our_scan, implementation="reference")),
    "lean_loop": Competitor(lean_loop, (0, 1, 2)),
    "compiled_loop": Competitor(compiled_loop, (0, 1, 2)),
    "mamba_reference": Competitor(mamba_reference, (1, 2, 0)),
    "mambapy": Competitor(mambapy_scan, (1, 0, 2), package="mambapy"),
    "mamba_ssm": Competitor(mamba_ssm_scan, (1, 2, 0), package="mamba_ssm", needs_gpu=True),
}
"""The competitors by name, ours first."""


def find_competitors(names: Sequence[str], device: torch.device) -> list[str]:
    """The competitors of these names, each once. Without names, all that can run on ``device``.

    Raises:
        ValueError: a name is unknown, or something that it needs is missing.
    """
    for name in names:
        if name not in COMPETITORS:
            candidates = nearest(name, COMPETITORS) or list(COMPETITORS)
            raise ValueError(f"competitors: {name!r} is unknown, nearest: {', '.join(candidates)}")
        if missing := COMPETITORS[name].missing(device):
            raise ValueError(f"competitors: {name} needs {missing}")
    if names:
        return list(dict.fromkeys(names))  # each once
    return [name for name, competitor in COMPETITORS.items() if not competitor.missing(device)]
