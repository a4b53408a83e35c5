"""Certified upper bounds on max-min multicast beamforming, from any guess of a dual point.

The bound is that of docs/formulation.md section 4.1. Powers are absorbed (P_n = 1), and every
amplitude norm(w_n) is in an interval [l_n, h_n], by default [0, 1]. For every lambda in the simplex
over the users, alpha > 0 and D >= 0 with

    sum_k alpha_k g_k g_k^H  <=  blockdiag_n(D_n I)                                            (1)

    u*  <=  sum_k lambda_k^2 / (4 alpha_k) + sum_n max_{q in {l_n, h_n}} (D_n q^2 - c_n q)     (2)

with c_n = sum_k lambda_k eps_{k,n}. The proof has four steps. u is at most
sum_k lambda_k (|y_k| - sum_n eps_{k,n} q_n) for q_n = norm(w_n). For every user,
lambda |y| <= alpha |y|^2 + lambda^2 / (4 alpha). By (1), sum_k alpha_k |y_k|^2 is at most
sum_n D_n q_n^2. And D q^2 - c q is convex in q, so that it is largest at an end of the interval.

In the formulation's symbols a_k = alpha_k / lambda_k and mu_n = D_n - c_n / (l_n + h_n), and the
maximum in (2) is the chord of the square root on [l^2, h^2]. Condition (1) is the largest
eigenvalue of a |U| x |U| matrix,

    lambda_max(diag(alpha)^1/2 (sum_n S_n / D_n) diag(alpha)^1/2) <= 1,

and dividing alpha by it makes any guess feasible.

Rounding. S_n comes from inner products of length A, so entry (k,l) of the matrix T is off by at
most gamma sqrt(T_kk T_ll), gamma = (A + N + 9 K + 16) 2^-53 with the few products and roots
counted, hence the matrix by gamma tr(T) in norm. 4 gamma tr(T) is added to the eigenvalue. The
eigenvalue routine is not relied on: its value t, padded likewise, counts only if the Cholesky
factorisation of t I - T runs to completion, which proves that matrix to be above
-4 (K + 2) 2^-53 tr(t I - T) (S. M. Rump, BIT 46, 2006, theorem 2.3, complex), of which twice is
taken. Otherwise the trace is the bound. The sum (2) has absolute error at most gamma times the sum
of the moduli of its terms, which is added too, as is the deviation of sum_k lambda_k from 1. So the
number returned bounds u* in exact arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.rounding import ROUNDOFF

SMALLEST = 1e-12
"""Least D_n, so that 1 / D_n stays finite; any positive value is valid."""


@dataclass(frozen=True)
class BeamDual:
    """Dual-feasible points, one per problem of a batch.

    Attributes
    ----------
    weight
        (B, K) lambda, in the simplex.
    slope
        (B, K) alpha = lambda a of the formulation.
    price
        (B, N) D, per unit of transmit power.
    """

    weight: Tensor
    slope: Tensor
    price: Tensor

    def take(self, index: Tensor) -> BeamDual:
        """Return the points that `index` (m,), or a mask (B,), selects."""
        return BeamDual(self.weight[index], self.slope[index], self.price[index])

    def put(self, index: Tensor, new: BeamDual) -> BeamDual:
        """Return these points with those of the problems `index` (m,) replaced."""
        return BeamDual(
            self.weight.index_copy(0, index, new.weight),
            self.slope.index_copy(0, index, new.slope),
            self.price.index_copy(0, index, new.price),
        )

    def joined(self, more: BeamDual) -> BeamDual:
        """Return these points followed by `more`."""
        return BeamDual(
            torch.cat([self.weight, more.weight]),
            torch.cat([self.slope, more.slope]),
            torch.cat([self.price, more.price]),
        )

    def where(self, choose: Tensor, otherwise: BeamDual) -> BeamDual:
        """Return this point where `choose` (B,) holds, else `otherwise`."""
        pick = choose[:, None]
        return BeamDual(
            torch.where(pick, self.weight, otherwise.weight),
            torch.where(pick, self.slope, otherwise.slope),
            torch.where(pick, self.price, otherwise.price),
        )


@dataclass(frozen=True)
class Box:
    """Intervals of the ENs' amplitudes, low <= norm(w_n) <= high, one box per problem.

    Attributes
    ----------
    low, high
        (B, N), 0 <= low <= high <= 1.
    """

    low: Tensor
    high: Tensor

    @classmethod
    def whole(cls, group: Group) -> Box:
        """Return the box that holds all beams: every amplitude in [0, 1]."""
        low = torch.zeros_like(group.error[:, 0])
        return cls(low, torch.ones_like(low))

    def take(self, index: Tensor) -> Box:
        """Return the boxes that `index` (m,), or a mask (B,), selects."""
        return Box(self.low[index], self.high[index])

    def joined(self, more: Box) -> Box:
        """Return these boxes followed by `more`."""
        return Box(torch.cat([self.low, more.low]), torch.cat([self.high, more.high]))


@dataclass(frozen=True)
class Certificate:
    """Certified bounds with the dual points that prove them, in the caller's units.

    For lambda in the simplex, sum_k alpha_k g_k g_k^H <= blockdiag_n(D_n I) over the ENs with
    power, the bound on u = sqrt(snr) is

        sum_k lambda_k^2 / (4 alpha_k) + sum_n max(0, D_n P_n - sqrt(P_n) sum_k lambda_k eps_{k,n})

    (equation (2) above in the caller's units). Of `certify`, tensors on the CPU.

    Attributes
    ----------
    snr
        (B,) achieved by the beams found on the way.
    relaxation
        (B,) bound on the SNR that the dual point proves.
    bound
        (B,) the smallest bound proved by any means (single-user bound, branching); it is at
        most `relaxation`.
    weight, slope
        (B, K) lambda and alpha, 0 for users left out.
    price
        (B, N) D, infinite at ENs without power.
    boxes
        (B,) int64, how many boxes branching examined, 1 without.
    """

    snr: Tensor
    relaxation: Tensor
    bound: Tensor
    weight: Tensor
    slope: Tensor
    price: Tensor
    boxes: Tensor


def rounding(group: Group) -> float:
    """Return gamma, the relative rounding allowance of sums over this group's arrays."""
    _, nodes, users, _ = group.gram.shape
    return 4 * (group.antennas + nodes + 9 * users + 16) * ROUNDOFF


def coupling(group: Group, slope: Tensor, price: Tensor) -> Tensor:
    """Return T = diag(alpha)^1/2 (sum_n S_n / D_n) diag(alpha)^1/2, (B, K, K).

    Examples
    --------
    >>> one = torch.ones(1, 2, dtype=torch.float64)
    >>> gram = torch.tensor([[[[4.0, 2.0], [2.0, 1.0]]]], dtype=torch.complex128)  # g = 2, 1
    >>> group = Group(gram, torch.zeros(1, 2, 1, dtype=torch.float64), one, antennas=1)
    >>> coupling(group, torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0]]).double()).real.tolist()
    [[[2.0, 2.0], [2.0, 2.0]]]
    """
    batch, nodes, users, _ = group.gram.shape
    flat = torch.view_as_real(group.gram).reshape(batch, nodes, -1)
    mixed = (1 / price)[:, None] @ flat
    root = slope.sqrt()
    return torch.view_as_complex(mixed.reshape(batch, users, users, 2)) * (
        root[:, :, None] * root[:, None, :]
    )


def largest_eigenvalue(matrix: Tensor) -> Tensor:
    """Return lambda_max (B,) of Hermitian matrices, infinite where an entry is not finite."""
    sound = matrix.isfinite().all(-1).all(-1)
    safe = torch.where(sound[:, None, None], matrix, 0.0)
    try:
        top = torch.linalg.eigvalsh(safe)[:, -1]
    except RuntimeError:
        # No convergence. The trace of a positive semidefinite matrix is no smaller.
        top = torch.diagonal(safe, dim1=-2, dim2=-1).real.sum(-1)
    return torch.where(sound, top, torch.inf)


def proven_eigenvalue(matrix: Tensor, trace: Tensor, gamma: float) -> Tensor:
    """Return an upper bound (B,) on lambda_max of the exact matrices, see Rounding above.

    Parameters
    ----------
    matrix
        (B, K, K) Hermitian, as computed; the exact one is positive semidefinite.
    trace
        (B,) its trace.
    gamma
        The exact matrix is off by at most gamma times the trace, in norm.

    Examples
    --------
    The matrix of ones has the eigenvalue 2; rounding adds a little.

    >>> ones = torch.ones(1, 2, 2, dtype=torch.complex128)
    >>> top = proven_eigenvalue(ones, torch.tensor([2.0], dtype=torch.float64), 1e-15)
    >>> 2 < top.item() < 2 + 1e-13
    True
    """
    users = matrix.shape[-1]
    top = largest_eigenvalue(matrix) + gamma * trace
    identity = torch.eye(users, dtype=matrix.dtype, device=matrix.device)
    _, failed = torch.linalg.cholesky_ex(top[:, None, None] * identity - matrix)
    proof = 8 * (users + 2) * ROUNDOFF * (users * top + trace)
    return torch.where(failed == 0, top + proof, trace) + gamma * trace


def dual_value(group: Group, point: BeamDual, box: Box) -> tuple[Tensor, Tensor]:
    """Return the right-hand side of (2), (B,), and the sum of the moduli of its terms.

    Examples
    --------
    One user with lambda = 1 and alpha = 1/4, who gives 1, and one EN with D = 1 and eps = 0.8.
    Over [0, 1] the EN adds most at full power, 1 - 0.8; over [0, 1/2] when silent, 0.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> group = Group(torch.ones(1, 1, 1, 1) + 0j, 0.8 * one[..., None], one, antennas=1)
    >>> value, moduli = dual_value(group, BeamDual(one, one / 4, one), Box.whole(group))
    >>> round(value.item(), 9), round(moduli.item(), 9)
    (1.2, 2.8)
    >>> value, _ = dual_value(group, BeamDual(one, one / 4, one), Box(0 * one, one / 2))
    >>> round(value.item(), 9)
    1.0
    """
    spread = _quadratic(point)
    loss = (point.weight[:, None] @ group.error)[:, 0]
    at_high = point.price * box.high**2 - loss * box.high
    at_low = point.price * box.low**2 - loss * box.low
    value = spread + torch.maximum(at_high, at_low).sum(-1)
    return value, spread + (point.price * box.high**2 + loss * box.high).sum(-1)


def closed(group: Group, guess: BeamDual, box: Box) -> tuple[Tensor, BeamDual]:
    """Make a guess dual feasible by scaling and return the certified bound on u with the point.

    Parameters
    ----------
    group
        The problems.
    guess
        Any non-negative arrays; need not be feasible, nor weight sum to 1.
    box
        Amplitudes for which the bound is to hold.

    Returns
    -------
    (B,) certified bound on u of the scaled problem, and the feasible point that proves it.

    Examples
    --------
    One EN and one user of gain 2, so that u = 2 at most. A good guess proves it; the common scale
    of alpha and D is free, so that another with the same ratio proves the same.

    >>> gram = torch.full((1, 1, 1, 1), 4.0, dtype=torch.complex128)
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> group = Group(gram, torch.zeros(1, 1, 1, dtype=torch.float64), one, antennas=1)
    >>> bound, point = closed(group, BeamDual(one, one / 4, one), Box.whole(group))
    >>> round(bound.item(), 9)
    2.0
    >>> bound, _ = closed(group, BeamDual(7 * one, one, 4 * one), Box.whole(group))
    >>> round(bound.item(), 9)
    2.0

    The certified number is not below the exact one, though next to it.

    >>> bool(bound >= 2) and bool(bound < 2 + 1e-12)
    True
    """
    # lambda into the simplex, alpha and D away from 0.
    gamma = rounding(group)
    weight = guess.weight.clamp(min=0) * group.present
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-300)
    slope = guess.slope.clamp(min=1e-14) * group.present
    loss = (weight[:, None] @ group.error)[:, 0]
    free = loss / (box.low + box.high).clamp(min=SMALLEST)  # a price up to here costs nothing
    price = torch.maximum(guess.price.clamp(min=SMALLEST), free)

    # (1) holds once alpha is divided by a proven bound on the eigenvalue.
    matrix = coupling(group, slope, price)
    trace = torch.diagonal(matrix, dim1=-2, dim2=-1).real.sum(-1)
    top = proven_eigenvalue(matrix, trace, gamma)
    slope = slope / top.clamp(min=1e-30)[:, None]

    # Scaling alpha and D by a common s keeps (1): minimise spread / s + s (priced power). The best
    # s for the ENs that pay is found in closed form, and which ENs pay depends on s.
    spread = _quadratic(BeamDual(weight, slope, price))
    best, scaling = torch.full_like(spread, torch.inf), torch.ones_like(spread)
    factor = torch.ones_like(spread)
    for _ in range(4 if bool((group.error > 0).any()) else 2):
        trial = torch.maximum(price * factor[:, None], free)
        point = BeamDual(weight, slope * factor[:, None], trial)
        value, moduli = dual_value(group, point, box)
        value = value + gamma * moduli
        scaling = torch.where(value < best, factor, scaling)
        best = torch.minimum(best, value)
        used = torch.where(price * factor[:, None] >= free, box.high**2, box.low**2)
        factor = (spread / (price * used).sum(-1).clamp(min=1e-30)).sqrt().clamp(1e-6, 1e6)
    point = BeamDual(
        weight, slope * scaling[:, None], torch.maximum(price * scaling[:, None], free)
    )
    # A guess without any weight, or with a number that is not finite, proves nothing. Its point
    # has no weight, so that nobody builds on it.
    sound = best.isfinite() & (weight.sum(-1) > 0.5)
    nothing = torch.zeros_like(weight)
    unsound = BeamDual(nothing, torch.ones_like(slope), torch.ones_like(price))
    return torch.where(sound, best, torch.inf), point.where(sound, unsound)


def _quadratic(point: BeamDual) -> Tensor:
    """Return sum_k lambda_k^2 / (4 alpha_k), (B,)."""
    weight, slope = point.weight, point.slope
    return torch.where(weight > 0, weight**2 / (4 * slope).clamp(min=1e-300), 0.0).sum(-1)


def guess_from_beams(group: Group, direction: Tensor, gain: Tensor) -> tuple[BeamDual, Tensor]:
    """Return the dual guess that belongs to beams w_n = gain_n sum_k direction_k g_{k,n}.

    At a rank-one optimum of the relaxation alpha_k = lambda_k / (2 |y_k|) and D_n = r_n / 2.

    Parameters
    ----------
    group
        The problems.
    direction
        (B, K) complex, lambda_k e_k.
    gain
        (B, N).

    Returns
    -------
    The guess and |y_k| (B, K).

    Examples
    --------
    One EN, users of orthogonal channels, norms 3 and 4, and the beam with amplitude 12 / 5 at both.
    The point proves that no beam gives more (`closed`).

    >>> gram = torch.diag(torch.tensor([9.0, 16.0])).to(torch.complex128)[None, None]
    >>> one = torch.ones(1, 2, dtype=torch.float64)
    >>> group = Group(gram, torch.zeros(1, 2, 1, dtype=torch.float64), one, antennas=2)
    >>> direction = torch.tensor([[16 / 25, 9 / 25]], dtype=torch.complex128)
    >>> gain = torch.tensor([[5 / 12]], dtype=torch.float64)
    >>> guess, received = guess_from_beams(group, direction, gain)
    >>> [round(x, 9) for x in received[0].tolist()]
    [2.4, 2.4]
    >>> bound, _ = closed(group, guess, Box.whole(group))
    >>> round(bound.item(), 9)
    2.4
    """
    image = (group.gram @ direction[:, None, :, None])[..., 0]
    square = (image * direction.conj()[:, None]).real.sum(-1).clamp(min=0)
    received = (gain[..., None] * image).sum(1).abs()
    weight = direction.abs()
    slope = weight / (2 * received.clamp(min=1e-6))
    return BeamDual(weight, slope, square.sqrt() / 2), received
