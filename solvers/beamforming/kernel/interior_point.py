"""Batched interior-point method for the relaxation's dual, in the |U|-dimensional space.

Minimise over lambda in the simplex, alpha > 0, D > 0 (symbols of certificate.py)

    sum_k lambda_k^2 / (4 alpha_k) + sum_n max(D_n h_n^2 - c_n h_n, D_n l_n^2 - c_n l_n)
    subject to  Z = blockdiag_n(D_n I) - sum_k alpha_k g_k g_k^H >= 0

by Newton's method on the self-concordant barrier function with parameter mu: - mu log det Z,
- mu log alpha_k (what is left of the rotated cone's barrier once its epigraph variable is
minimised out; lambda needs none, being 2 alpha_k times a positive number at the optimum), and for
each maximum of two x, y its two half-spaces with the epigraph variable minimised out,

    (x + y)/2 + s - mu log(2 mu s),   s = mu + sqrt(mu^2 + (x - y)^2 / 4).

Z has |Q|A rows, but with S = sum_n S_n / D_n, Lambda = diag(alpha) and J = (I - Lambda^1/2 S
Lambda^1/2)^-1 everything is |U| x |U|:

    G^H Z^-1 = W G^H blockdiag(D)^-1,   W = Lambda^-1/2 J Lambda^1/2,   M = Lambda^1/2 J Lambda^1/2
    log det Z = sum_n A log D_n - log det J
    -d/d alpha_k log det Z = C_kk,  C = W S          d/d D_n log det Z = A/D_n + tr(M S_n)/D_n^2
    second derivatives of -log det Z:  |C_kl|^2,  -(W S_n W^H)_kk / D_n^2,
        delta_nm (A/D_n^2 + 2 tr(M S_n)/D_n^3) + tr(M S_n M S_m) / (D_n^2 D_m^2)

with A replaced by min(A, |U|), to which the problem reduces by rotating every EN's antennas. The
value reported is that of the iterate made feasible by scaling (`closed`), so every iterate,
converged or not, gives a valid bound. Y. Nesterov, A. Nemirovskii, Interior-Point Polynomial
Algorithms in Convex Programming, SIAM 1994, chapters 2 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from finecast.solvers.beamforming.kernel.certificate import (
    BeamDual,
    Box,
    closed,
    coupling,
    dual_value,
    largest_eigenvalue,
)
from finecast.solvers.beamforming.kernel.gram import Group

CUT = 0.2
"""The barrier parameter shrinks by this factor once an iterate is centred: a faster cut jams."""

CENTRED = 1.0
"""Squared Newton decrement (in units of mu) below which an iterate counts as centred."""

HALVINGS = 8
"""How often a step may be halved."""


@dataclass(frozen=True)
class Reached:
    """What the best beams known reach.

    Attributes
    ----------
    value
        (B,) their u.
    received
        (B, K) |y_k|.
    """

    value: Tensor
    received: Tensor

    def take(self, index: Tensor) -> Reached:
        """Return the problems that `index` (m,), or a mask (B,), selects."""
        return Reached(self.value[index], self.received[index])


@dataclass(frozen=True)
class _Running:
    """Problems still worked on: their place in the batch, what they are, and where they stand."""

    place: Tensor
    group: Group
    box: Box
    reached: Reached
    point: BeamDual
    mu: Tensor

    def take(self, chosen: Tensor) -> _Running:
        """Return the problems that the mask `chosen` selects."""
        if bool(chosen.all()):
            return self
        return _Running(
            self.place[chosen],
            self.group.take(chosen),
            self.box.take(chosen),
            self.reached.take(chosen),
            self.point.take(chosen),
            self.mu[chosen],
        )


def refine(
    group: Group,
    guess: BeamDual,
    reached: Reached,
    box: Box,
    tolerance: float,
    iterations: int = 60,
) -> tuple[Tensor, BeamDual]:
    """Lower the bound of every problem to within `tolerance` of its relaxation's optimum.

    Parameters
    ----------
    group
        The problems.
    guess
        Dual points to start from.
    reached
        What beams reach; a problem is finished once its bound is within `tolerance` of their u.
    box
        Amplitudes for which the bounds are to hold.
    tolerance
        Relative, on u.
    iterations
        Largest number of Newton steps.

    Returns
    -------
    (B,) certified bound on u and the dual point that proves it.
    """
    bound, proof = closed(group, guess, box)
    point, mu = _interior(group, guess, reached, box)
    place = torch.arange(len(bound), device=bound.device)
    running = _Running(place, group, box, reached, point, mu)
    complexity = _complexity(group)
    for _ in range(iterations):
        # Problems whose bound meets the beams leave the batch.
        running = running.take(bound[running.place] > (1 + tolerance) * running.reached.value)
        if not len(running.place):
            break
        # A Newton step; every iterate is made feasible and gives a bound.
        point, decrement = _newton(running.group, running.point, running.mu, running.box)
        value, feasible = closed(running.group, point, running.box)
        lower = value < bound[running.place]
        bound = bound.index_copy(0, running.place, torch.minimum(value, bound[running.place]))
        proof = proof.put(running.place[lower], feasible.take(lower))
        # Centred iterates go on with a smaller mu, or leave where mu is as small as it need be.
        centred = decrement <= CENTRED
        small = complexity * running.mu <= tolerance * bound[running.place]
        mu = torch.where(centred, CUT * running.mu, running.mu)
        running = replace(running, point=point, mu=mu).take(~(centred & small))
    return bound, proof


def _complexity(group: Group) -> int:
    """Return the parameter nu of the barrier: nu mu bounds the gap of a centred iterate."""
    _, nodes, users, _ = group.gram.shape
    return users + nodes * (min(group.antennas, users) + 2)


def _interior(group: Group, guess: BeamDual, reached: Reached, box: Box) -> tuple[BeamDual, Tensor]:
    """Move a guess, usually on the boundary, well inside; return it and the first mu."""
    # A tenth of equal shares is mixed in, so that no weight, slope or price is near 0.
    present = group.present
    strength = torch.diagonal(group.gram, dim1=-2, dim2=-1).real.clamp(min=0).sqrt().sum(1)
    strength = strength.clamp(min=1e-3)
    share = 0.1 * present / strength
    total = (guess.weight + share).sum(-1, keepdim=True)
    weight = (guess.weight + share) / total
    slope = (guess.weight / reached.received.clamp(min=1e-3) + share / strength) / (2 * total)
    slope = torch.where(present > 0, slope, 1.0)
    price = guess.price + 0.1 * guess.price.mean(-1, keepdim=True) + 1e-6
    # Slopes and prices are scaled apart until the eigenvalue of condition (1) is 0.8.
    top = largest_eigenvalue(coupling(group, slope, price))[:, None]
    shrink = (0.8 / top.clamp(min=1e-12)).sqrt()
    point = BeamDual(weight, torch.where(present > 0, slope * shrink, 1.0), price / shrink)
    value, _ = dual_value(group, point, box)
    return point, (value - reached.value).clamp(min=1e-6) / _complexity(group)


def _barrier(group: Group, point: BeamDual, mu: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """Return the barrier function, infinite outside the domain, and the Cholesky factor of J^-1."""
    weight, slope, price = point.weight, point.slope, point.price
    users = weight.shape[-1]
    inside = (weight > -1e-300).all(-1) & (slope > 0).all(-1) & (price > 0).all(-1)
    slope, price = slope.clamp(min=1e-300), price.clamp(min=1e-300)
    matrix = coupling(group, slope, price)
    identity = torch.eye(users, dtype=matrix.dtype, device=matrix.device)
    factor, failed = torch.linalg.cholesky_ex(identity - matrix)
    determinant = 2 * torch.diagonal(factor, dim1=-2, dim2=-1).real.clamp(min=1e-300).log().sum(-1)
    rank = min(group.antennas, users)
    loss = (weight[:, None] @ group.error)[:, 0]
    at_high = price * box.high**2 - loss * box.high
    at_low = price * box.low**2 - loss * box.low
    m = mu[:, None]
    s = m + (m**2 + (at_high - at_low) ** 2 / 4).sqrt()
    value = (
        (weight**2 / (4 * slope)).sum(-1)
        + ((at_high + at_low) / 2 + s - m * (2 * m * s).log()).sum(-1)
        - mu * (slope.log().sum(-1) + rank * price.log().sum(-1) + determinant)
    )
    return torch.where(inside & (failed == 0) & value.isfinite(), value, torch.inf), factor


def _derivatives(
    group: Group, point: BeamDual, mu: Tensor, box: Box, factor: Tensor
) -> tuple[Tensor, Tensor]:
    """Return gradient (B, m) and Hessian (B, m, m) of `_barrier` in (lambda, alpha, D).

    `factor` is the Cholesky factor of J^-1, m = 2 K + N. The formulas are those at the top.
    """
    weight, slope, price = point.weight, point.slope, point.price
    batch, nodes, users, _ = group.gram.shape
    rank = min(group.antennas, users)
    m = mu[:, None]

    # log det Z.
    root = slope.sqrt()
    inverse = torch.cholesky_inverse(factor)  # J
    middle = root[:, :, None] * inverse * root[:, None, :]  # M
    w = inverse * (root[:, None, :] / root[:, :, None])
    mixed = (group.gram / price[..., None, None]).sum(1)  # S
    c = w @ mixed
    through = middle[:, None] @ group.gram  # M S_n
    trace = torch.diagonal(through, dim1=-2, dim2=-1).real.sum(-1)
    per_user = ((w[:, None] @ group.gram) * w.conj()[:, None]).real.sum(-1)  # (W S_n W^H)_kk
    flat = through.reshape(batch, nodes, -1)
    pairs = (flat @ through.mT.reshape(batch, nodes, -1).mT).real  # tr(M S_n M S_m)

    # The smoothed maxima over the two ends of every EN's interval.
    loss = (weight[:, None] @ group.error)[:, 0]
    square, side = box.high**2 - box.low**2, box.high - box.low
    difference = price * square - loss * side
    half = (m**2 + difference**2 / 4).sqrt()
    s = m + half
    share = 0.5 + difference / (4 * s)  # how much of the maximum is at the upper end
    bend = 1 / (4 * s) - difference**2 / (16 * s**2 * half)
    error = group.error.mT  # (B, N, K)
    amplitude = share * box.high + (1 - share) * box.low

    gradient = torch.cat(
        [
            weight / (2 * slope) - (error * amplitude[..., None]).sum(1),
            -(weight**2) / (4 * slope**2)
            + m * (torch.diagonal(c, dim1=-2, dim2=-1).real - 1 / slope),
            share * box.high**2 + (1 - share) * box.low**2 - m * (rank / price + trace / price**2),
        ],
        -1,
    )
    lam, alp, pri = _parts(users, nodes)
    hessian = gradient.new_zeros(batch, 2 * users + nodes, 2 * users + nodes)
    hessian[:, lam, lam] = torch.diag_embed(1 / (2 * slope)) + error.mT @ (
        error * (bend * side**2)[..., None]
    )
    hessian[:, alp, lam] = torch.diag_embed(-weight / (2 * slope**2))
    hessian[:, alp, alp] = (
        torch.diag_embed(weight**2 / (2 * slope**3) + m / slope**2)
        + mu[:, None, None] * c.abs() ** 2
    )
    hessian[:, pri, lam] = -error * (bend * side * square)[..., None]
    hessian[:, pri, alp] = -m[..., None] * per_user / price[..., None] ** 2
    hessian[:, pri, pri] = (
        torch.diag_embed(bend * square**2 + m * (rank / price**2 + 2 * trace / price**3))
        + mu[:, None, None] * pairs / (price[:, :, None] * price[:, None, :]) ** 2
    )
    hessian[:, lam, alp] = hessian[:, alp, lam].mT
    hessian[:, lam, pri] = hessian[:, pri, lam].mT
    hessian[:, alp, pri] = hessian[:, pri, alp].mT
    return gradient, hessian


def _parts(users: int, nodes: int) -> tuple[slice, slice, slice]:
    """Return where lambda, alpha and D stand in a vector of all unknowns."""
    return slice(0, users), slice(users, 2 * users), slice(2 * users, 2 * users + nodes)


def _newton(group: Group, point: BeamDual, mu: Tensor, box: Box) -> tuple[BeamDual, Tensor]:
    """Take one damped Newton step; return the new point and the squared Newton decrement."""
    start, factor = _barrier(group, point, mu, box)
    gradient, hessian = _derivatives(group, point, mu, box, factor)
    size = gradient.shape[1]
    lam, alp, pri = _parts(point.weight.shape[1], point.price.shape[1])
    m = mu[:, None]

    # Newton in relative coordinates x = x_0 (1 + t): gains may spread over many decades. The last
    # row keeps lambda in the simplex, absent users get a unit row and no step.
    unit = torch.cat([point.weight, point.slope, point.price], -1)
    absent = torch.cat([1 - group.present, 1 - group.present, torch.zeros_like(point.price)], -1)
    scaled = hessian * (unit[:, :, None] * unit[:, None, :] / mu[:, None, None])
    system = torch.nn.functional.pad(scaled + torch.diag_embed(absent), (0, 1, 0, 1))
    system[:, size, lam] = system[:, lam, size] = point.weight
    descent = -gradient * unit / m * (1 - absent)
    rhs = torch.cat([descent, torch.zeros_like(m)], -1)
    step = torch.linalg.solve_ex(system, rhs)[0][:, :size]
    step = torch.where(step.isfinite().all(-1, keepdim=True), step, 0.0)
    decrement = (descent * step).sum(-1)

    # The step is halved until the barrier function falls (Armijo), and dropped if it never does.
    length = 0.9 / (-step).amax(-1).clamp(min=0.9)
    taken = torch.zeros_like(length)
    waiting = torch.ones_like(length, dtype=torch.bool)
    for _ in range(HALVINGS):
        trial = unit * (1 + length[:, None] * step)
        value, _ = _barrier(group, BeamDual(trial[:, lam], trial[:, alp], trial[:, pri]), mu, box)
        good = waiting & (value <= start - 0.05 * length * decrement * mu + 1e-12)
        taken = torch.where(good, length, taken)
        waiting = waiting & ~good
        if not waiting.any():
            break
        length = torch.where(waiting, length / 2, length)
    unit = unit * (1 + taken[:, None] * step)
    weight = unit[:, lam] / unit[:, lam].sum(-1, keepdim=True)
    return BeamDual(weight, unit[:, alp], unit[:, pri]), decrement
