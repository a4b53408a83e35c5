"""User groups in Gram form: all that multicast beamforming needs to know of the channels.

With the power limits absorbed in the channels (g_{k,n} times sqrt(P_n), so that every EN may send
norm(w_n) <= 1) beams are w_n = sum_k x_{n,k} g_{k,n}, and every inner product is an entry of
S_n[k,l] = g_{k,n}^H g_{l,n}. The number of antennas drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.solvers.beamforming.kernel.steps import MUTE, STRONGEST
from finecast.solvers.rounding import ROUNDOFF


@dataclass(frozen=True)
class Group:
    """Batch of user groups, scaled so that the optimum u = sqrt(min snr) is at most 1.

    Attributes
    ----------
    gram
        (B, N, K, K) complex, S_n[k,l] of the scaled channels.
    error
        (B, K, N) real, radii of the error balls in the same unit.
    present
        (B, K) real, 1 for the users of the group and 0 for padding, whose gram and error are 0.
    antennas
        A, the length of the inner products behind gram.
    """

    gram: Tensor
    error: Tensor
    present: Tensor
    antennas: int

    def to(self, dtype: torch.dtype) -> Group:
        """Return the same group with gram of the complex `dtype`."""
        real = real_of(dtype)
        present = self.present.to(real)
        return Group(self.gram.to(dtype), self.error.to(real), present, self.antennas)

    def take(self, index: Tensor) -> Group:
        """Return the problems `index` (m,) of the batch."""
        return Group(self.gram[index], self.error[index], self.present[index], self.antennas)

    def only(self, users: Tensor) -> Group:
        """Return the groups without the users that `users` (B, K) marks with 0."""
        present = self.present * users
        gram = self.gram * (present[:, None, :, None] * present[:, None, None, :])
        return Group(gram, self.error * present[..., None], present, self.antennas)


@dataclass(frozen=True)
class ScaledGroups:
    """A batch of problems brought to unit powers and an optimum of at most 1.

    Attributes
    ----------
    group
        What the search works on.
    channel
        (B, K, N, A) complex128, the channels of `group`.
    scale
        (B,) u in the caller's unit is u of the group times this; 1 where nothing can be sent.
    single_user
        (B,) upper bound on u in the caller's unit, min_k sum_n sqrt(P_n) (norm(g_kn) - eps_kn)_+.
    faithful
        (B, K) 1 for the users whose channel in `group` was not capped.
    """

    group: Group
    channel: Tensor
    scale: Tensor
    single_user: Tensor
    faithful: Tensor

    def take(self, index: Tensor) -> ScaledGroups:
        """Return the problems `index` (m,) of the batch."""
        return ScaledGroups(
            self.group.take(index),
            self.channel[index],
            self.scale[index],
            self.single_user[index],
            self.faithful[index],
        )


def real_of(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype of the complex `dtype`."""
    return torch.float32 if dtype == torch.complex64 else torch.float64


def scaled(
    channel: Tensor, error: Tensor, power: Tensor, nodes: Tensor, users: Tensor
) -> ScaledGroups:
    """Absorb powers and masks, and scale every problem by its single-user bound.

    Parameters
    ----------
    channel, error, power
        (B, K, N, A) complex128, (B, K, N) and (B, N) float64, normalised by the noise amplitude.
    nodes, users
        (B, N) and (B, K) bool masks.

    Examples
    --------
    Power 4 doubles the amplitude of the one user, whom nobody can give more than 2 * 3.

    >>> channel = torch.full((1, 1, 1, 1), 3.0, dtype=torch.complex128)
    >>> power = torch.tensor([[4.0]], dtype=torch.float64)
    >>> everyone = torch.ones(1, 1, dtype=torch.bool)
    >>> problem = scaled(channel, torch.zeros(1, 1, 1).double(), power, everyone, everyone)
    >>> round(problem.single_user.item(), 9), problem.scale.item(), problem.group.gram.real.item()
    (6.0, 6.0, 1.0)
    """
    # Powers and masks into the channels, which are then at most 1, so that no square overflows.
    present = users.to(error)
    amplitude = power.sqrt() * nodes
    kept = amplitude[:, None] * present[..., None]
    peak = (torch.view_as_real(channel).abs().amax((-2, -1)) * kept).amax((1, 2))
    peak = torch.where(peak > 0, peak, 1.0)
    channel = channel * (kept / peak[:, None, None])[..., None]
    error = (error * (kept / peak[:, None, None])).clamp(max=STRONGEST)

    # The scale is what the weakest user would have alone, or a little where that is next to none.
    norm = torch.view_as_real(channel).square().sum((-2, -1)).sqrt()
    strength = torch.where(users, (norm - error).clamp(min=0).sum(-1), torch.inf)
    weakest, worst = strength.min(-1)
    whole = norm.sum(-1).gather(1, worst[:, None])[:, 0]
    weakest = torch.where(weakest > 0, torch.maximum(weakest, 1e-5 * whole), 1.0)
    slack = 4 * (channel.shape[-1] + 16) * ROUNDOFF * (norm + error)  # rounding of norm - error
    single_user = (norm - error + slack).clamp(min=0).sum(-1)
    single_user = torch.where(users, single_user, torch.inf).amin(-1) * (peak * (1 + 1e-14))

    # Users far above the weakest one are capped: they do not decide, and spoil the numbers.
    norm = norm / weakest[:, None, None]
    cap = (STRONGEST / norm.amax(-1).clamp(min=STRONGEST))[..., None] / weakest[:, None, None]
    channel, error = channel * cap[..., None], error * cap
    # An error far above the user's channels only says that the EN must be silent.
    error = torch.minimum(error, MUTE * norm.amax(-1, keepdim=True).clamp(1, STRONGEST))
    faithful = (norm.amax(-1) <= STRONGEST).to(error)
    gram = torch.einsum("bkna,blna->bnkl", channel.conj(), channel)
    return ScaledGroups(
        Group(gram, error, present, channel.shape[-1]),
        channel,
        weakest * peak,
        single_user,
        faithful,
    )
