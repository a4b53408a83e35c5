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

import torch
from torch import Tensor

from finecast.solvers.beamforming.kernel.certificate import (
    BeamDual,
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


def refine(
    group: Group,
    guess: BeamDual,
    received: Tensor,
    achieved: Tensor,
    low: Tensor,
    high: Tensor,
    tolerance: float,
    iterations: int = 60,
) -> tuple[Tensor, BeamDual]:
    """Lower the bound of every problem to within `tolerance` of its relaxation's optimum.

    Parameters
    ----------
    guess
        Where to start.
    received
        (B, K) |y_k| of the best beams known.
    achieved
        (B,) their u; a problem is finished once its bound is within `tolerance` of it.
    low, high
        (B, N) interval of every EN's amplitude.
    tolerance
        Relative, on u.

    Returns
    -------
    (B,) certified bound on u and the dual point that proves it.
    """
    best, proof = closed(group, guess, low, high)
    alive = torch.arange(len(best), device=best.device)
    point, mu = _interior(group, guess, received, achieved, low, high)
    complexity = _complexity(group)
    for _ in range(iterations):
        lacking = best[alive] > (1 + tolerance) * achieved
        if not lacking.all():
            alive, group, point, mu = (
                alive[lacking],
                group.take(lacking),
                point.take(lacking),
                mu[lacking],
            )
            achieved, low, high = achieved[lacking], low[lacking], high[lacking]
        if not len(alive):
            break
        point, decrement = _newton(group, point, mu, low, high)
        value, feasible = closed(group, point, low, high)
        lower = value < best[alive]
        best[alive] = torch.minimum(value, best[alive])
        proof = _replace(proof, alive[lower], feasible.take(lower))
        centred = decrement <= CENTRED
        small = complexity * mu <= tolerance * best[alive]
        going = ~(centred & small)
        mu = torch.where(centred, CUT * mu, mu)
        if not going.all():
            alive, group, point, mu = alive[going], group.take(going), point.take(going), mu[going]
            achieved, low, high = achieved[going], low[going], high[going]
    return best, proof


def _complexity(group: Group) -> int:
    """Return the parameter nu of the barrier: nu mu bounds the gap of a centred iterate."""
    _, nodes, users, _ = group.gram.shape
    return users + nodes * (min(group.antennas, users) + 2)


def _replace(points: BeamDual, index: Tensor, by: BeamDual) -> BeamDual:
    points.weight[index] = by.weight
    points.slope[index] = by.slope
    points.price[index] = by.price
    return points


def _interior(
    group: Group, guess: BeamDual, received: Tensor, achieved: Tensor, low: Tensor, high: Tensor
) -> tuple[BeamDual, Tensor]:
    """Move a guess, usually on the boundary, well inside; return it and the first mu."""
    present = group.present
    strength = torch.diagonal(group.gram, dim1=-2, dim2=-1).real.clamp(min=0).sqrt().sum(1)
    strength = strength.clamp(min=1e-3)
    share = 0.1 * present / strength
    total = (guess.weight + share).sum(-1, keepdim=True)
    weight = (guess.weight + share) / total
    slope = (guess.weight / received.clamp(min=1e-3) + share / strength) / (2 * total)
    slope = torch.where(present > 0, slope, 1.0)
    price = guess.price + 0.1 * guess.price.mean(-1, keepdim=True) + 1e-6
    top = largest_eigenvalue(coupling(group, slope, price))[:, None]
    shrink = (0.8 / top.clamp(min=1e-12)).sqrt()
    point = BeamDual(weight, torch.where(present > 0, slope * shrink, 1.0), price / shrink)
    value, _ = dual_value(group, point, low, high)
    return point, (value - achieved).clamp(min=1e-6) / _complexity(group)


def _barrier(
    group: Group, point: BeamDual, mu: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
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
    at_high, at_low = price * high**2 - loss * high, price * low**2 - loss * low
    m = mu[:, None]
    s = m + (m**2 + (at_high - at_low) ** 2 / 4).sqrt()
    value = (
        (weight**2 / (4 * slope)).sum(-1)
        + ((at_high + at_low) / 2 + s - m * (2 * m * s).log()).sum(-1)
        - mu * (slope.log().sum(-1) + rank * price.log().sum(-1) + determinant)
    )
    return torch.where(inside & (failed == 0) & value.isfinite(), value, torch.inf), factor


def _newton(
    group: Group, point: BeamDual, mu: Tensor, low: Tensor, high: Tensor
) -> tuple[BeamDual, Tensor]:
    """Take one damped Newton step; return the new point and the squared Newton decrement."""
    weight, slope, price = point.weight, point.slope, point.price
    batch, nodes, users, _ = group.gram.shape
    rank = min(group.antennas, users)
    m = mu[:, None]
    start, factor = _barrier(group, point, mu, low, high)

    root = slope.sqrt()
    inverse = torch.cholesky_inverse(factor)
    middle = root[:, :, None] * inverse * root[:, None, :]  # M
    w = inverse * (root[:, None, :] / root[:, :, None])
    mixed = (group.gram / price[..., None, None]).sum(1)
    c = w @ mixed
    through = middle[:, None] @ group.gram  # M S_n
    trace = torch.diagonal(through, dim1=-2, dim2=-1).real.sum(-1)
    per_user = ((w[:, None] @ group.gram) * w.conj()[:, None]).real.sum(-1)  # (W S_n W^H)_kk
    flat = through.reshape(batch, nodes, -1)
    pairs = (flat @ through.mT.reshape(batch, nodes, -1).mT).real  # tr(M S_n M S_m)

    loss = (weight[:, None] @ group.error)[:, 0]
    square, side = high**2 - low**2, high - low
    difference = price * square - loss * side
    half = (m**2 + difference**2 / 4).sqrt()
    s = m + half
    share = 0.5 + difference / (4 * s)  # how much of the maximum is at the upper end
    bend = 1 / (4 * s) - difference**2 / (16 * s**2 * half)
    error = group.error.mT  # (B, N, K)
    amplitude = share * high + (1 - share) * low
    gradient = torch.cat(
        [
            weight / (2 * slope) - (error * amplitude[..., None]).sum(1),
            -(weight**2) / (4 * slope**2)
            + m * (torch.diagonal(c, dim1=-2, dim2=-1).real - 1 / slope),
            share * high**2 + (1 - share) * low**2 - m * (rank / price + trace / price**2),
        ],
        -1,
    )
    size = 2 * users + nodes
    system = gradient.new_zeros(batch, size + 1, size + 1)
    lam, alp, pri = slice(0, users), slice(users, 2 * users), slice(2 * users, size)
    system[:, lam, lam] = torch.diag_embed(1 / (2 * slope)) + error.mT @ (
        error * (bend * side**2)[..., None]
    )
    system[:, alp, lam] = torch.diag_embed(-weight / (2 * slope**2))
    system[:, alp, alp] = (
        torch.diag_embed(weight**2 / (2 * slope**3) + m / slope**2)
        + mu[:, None, None] * c.abs() ** 2
    )
    system[:, pri, lam] = -error * (bend * side * square)[..., None]
    system[:, pri, alp] = -m[..., None] * per_user / price[..., None] ** 2
    system[:, pri, pri] = (
        torch.diag_embed(bend * square**2 + m * (rank / price**2 + 2 * trace / price**3))
        + mu[:, None, None] * pairs / (price[:, :, None] * price[:, None, :]) ** 2
    )
    system[:, lam, alp] = system[:, alp, lam].mT
    system[:, lam, pri] = system[:, pri, lam].mT
    system[:, alp, pri] = system[:, pri, alp].mT

    # Newton in relative coordinates x = x_0 (1 + t): gains may spread over many decades.
    unit = torch.cat([weight, slope, price], -1)
    system[:, :size, :size] *= unit[:, :, None] * unit[:, None, :] / mu[:, None, None]
    system[:, size, lam] = system[:, lam, size] = weight
    absent = torch.cat([1 - group.present, 1 - group.present, torch.zeros_like(price)], -1)
    system[:, :size, :size] += torch.diag_embed(absent)
    descent = -gradient * unit / m * (1 - absent)
    rhs = torch.cat([descent, torch.zeros_like(m)], -1)
    step = torch.linalg.solve_ex(system, rhs)[0][:, :size]
    step = torch.where(step.isfinite().all(-1, keepdim=True), step, 0.0)
    decrement = (descent * step).sum(-1)

    length = 0.9 / (-step).amax(-1).clamp(min=0.9)
    taken = torch.zeros_like(length)
    waiting = torch.ones_like(length, dtype=torch.bool)
    for _ in range(HALVINGS):
        trial = unit * (1 + length[:, None] * step)
        value, _ = _barrier(
            group, BeamDual(trial[:, lam], trial[:, alp], trial[:, pri]), mu, low, high
        )
        good = waiting & (value <= start - 0.05 * length * decrement * mu + 1e-12)
        taken = torch.where(good, length, taken)
        waiting = waiting & ~good
        if not waiting.any():
            break
        length = torch.where(waiting, length / 2, length)
    unit = unit * (1 + taken[:, None] * step)
    weight = unit[:, lam] / unit[:, lam].sum(-1, keepdim=True)
    return BeamDual(weight, unit[:, alp], unit[:, pri]), decrement
