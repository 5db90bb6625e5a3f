"""The light token mixer: scans as matrix products.

Shapes: B batch, H grid height, W grid width, C embedding, D = expand * C inner channels, N state size,
P channels of a head, h = D / P heads, L length of a line.
"""

import math

import torch
import torch.nn.functional as F
from timm.layers import register_notrace_module
from torch import Tensor, nn

from v2m.layers.common import autocast_disabled, cast_for, check_map, check_sizes
from v2m.layers.mixers.base import Mixer
from v2m.layers.scan_parameters import inverse_softplus, log_uniform_like

DT_MIN, DT_MAX = 0.02, 0.5


@register_notrace_module  # what it does depends on shapes
class LightMixer(Mixer):
    """Mix the tokens of a map along rows, then columns, both ways at once, by matrix products.

    State space duality (Mamba-2, arXiv:2405.21060, section 6) in two dimensions. With one rate A for all the
    channels of a head, a scan of a line is a product with a matrix. With ``x, z = in_proj(input)`` and
    ``u = silu(conv2d(x))``, for each axis ``delta, B, C = x_proj(u)`` and a head's pass over a line is::

        y[t] = sum over s of <C[t], B[s]> * exp(-|p[t] - p[s]|) * dt[s] * u[s],    dt = softplus(delta)

    where ``p`` is the position of the centre of a cell in a line whose cells have lengths ``-A * dt``.

    Below the diagonal that is a scan from the start of the line, above it one from the end. Each decays by
    half a cell on leaving the source and half a cell on entering the target, so that the two senses are
    alike; a cell's own input counts once, half of it in each sense. Both passes are linear in what they mix,
    and their weights come from ``u``. So the column pass of the row pass is the sum of all four corners::

        (down + up)(right + left) u = down right u + down left u + up right u + up left u

    The output is ``out_proj((y + D * u) * silu(z))``. B and C have a bias, so that training starts from blurs
    of a reach of 2 to 50 cells. Exponents are never positive, so nothing overflows.

    Under autocast, projections and convolution run in the low precision; steps, decays and both passes in the
    dtype of the parameters, and in float32 at least.

    Args:
        dim: See ``Mixer``, as for all that is not described here.
        d_state: State size N, shared by the heads.
        head_dim: Channels P of a head, which share their steps and rate, a divisor of ``expand * dim``; None
            for 32, or for the largest power of two that divides it.

    Example:
        >>> LightMixer(32)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    undecayed = ("A_log", "D")

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        expand: int = 1,
        head_dim: int | None = None,
        use_gate: bool = True,
    ) -> None:
        super().__init__()
        check_sizes("LightMixer", dim=dim, d_state=d_state, expand=expand)
        inner = expand * dim
        if head_dim is None:
            head_dim = math.gcd(inner, 32)
        check_sizes("LightMixer", head_dim=head_dim)
        if inner % head_dim:
            raise ValueError(
                f"LightMixer: head_dim is {head_dim}, expected a divisor of expand * dim = {inner}"
            )
        self.dim, self.d_state, self.heads, self.use_gate = dim, d_state, inner // head_dim, use_gate

        self.in_proj = nn.Linear(dim, 2 * inner if use_gate else inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.x_proj = nn.Linear(inner, 2 * (self.heads + 2 * d_state))
        self.A_log = nn.Parameter(torch.empty(2 * self.heads))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_scan_parameters()

    @torch.no_grad()
    def reset_scan_parameters(self) -> None:
        """Initialise the passes to blurs: A = -1, D = 1, <B, C> about 1, steps log-uniform in 0.02..0.5."""
        self.A_log.zero_()
        self.D.fill_(1.0)
        steps = log_uniform_like(self.A_log, DT_MIN, DT_MAX)
        # B and C start as constant vectors of length 1; the first numbers of the bias are the steps.
        self.x_proj.bias.fill_(self.d_state**-0.5)
        self.x_proj.bias[: len(steps)] = inverse_softplus(steps)

    def forward(self, x: Tensor) -> Tensor:
        """Mix a map ``[B, H, W, C]`` into a map of the same shape."""
        check_map("LightMixer", x, self.dim)

        # Projections and convolution, in the low precision under autocast.
        x = self.in_proj(x)
        if self.use_gate:
            x, z = x.chunk(2, dim=-1)
        u = F.silu(self.conv2d(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        parameters = self.x_proj(u)

        # Steps, decays and both passes in float32 at least: positions are sums along a line.
        dtype = torch.promote_types(self.A_log.dtype, torch.float32)
        with autocast_disabled(x.device):
            u, parameters = u.to(dtype), parameters.to(dtype)
            delta, row_B, row_C, col_B, col_C = parameters.split(
                [2 * self.heads] + 4 * [self.d_state], dim=-1
            )
            dt = F.softplus(delta.permute(0, 3, 1, 2).contiguous())
            lengths = dt * self.A_log.to(dtype).exp().view(-1, 1, 1)
            (row_dt, col_dt), (row_lengths, col_lengths) = dt.chunk(2, dim=1), lengths.chunk(2, dim=1)
            # The column pass is the row pass of the transposed map.
            y = _row_pass(u, row_dt, row_lengths, row_B, row_C)
            y = _row_pass(
                y.transpose(1, 2), col_dt.mT, col_lengths.mT, col_B.transpose(1, 2), col_C.transpose(1, 2)
            ).transpose(1, 2)
            y = torch.addcmul(y, u, self.D.to(dtype))
            if self.use_gate:
                y = y * F.silu(z.to(dtype))
        return self.out_proj(cast_for(self.out_proj, y))

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        return f"d_state={self.d_state}, heads={self.heads}, use_gate={self.use_gate}"


def _row_pass(u: Tensor, dt: Tensor, lengths: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Mix the rows of ``u [B, H, W, D]``, with ``dt, lengths [B, h, H, W]`` and ``B, C [B, H, W, N]``."""
    # Distances have no sign, so one matrix has both senses in it.
    centres = lengths.cumsum(3) - lengths / 2
    decays = (centres.unsqueeze(4) - centres.unsqueeze(3)).abs_().neg_().exp_()
    matrices = decays * (C @ B.mT).unsqueeze(1)
    # All heads share B and C, but each has its own steps and decays.
    inputs = u.unflatten(3, (dt.shape[1], -1)).movedim(3, 1) * dt.unsqueeze(4)
    return (matrices @ inputs).movedim(1, 3).flatten(3)
