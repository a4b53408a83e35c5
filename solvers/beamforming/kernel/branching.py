"""Branching on the powers of ENs, where errors make the relaxation's chord loose.

norm(w_n) is replaced by its chord over [l_n^2, h_n^2] in the relaxation (certificate.py); the
narrower the interval, the smaller the chord's error eps (h - l)^2 / (4 (l + h)) at most. Splitting
the interval of the EN with the largest error into two and bounding both halves is a
branch-and-bound whose largest open bound is certified.
"""

from __future__ import annotations

import torch
from torch import Tensor

from finecast.solvers.beamforming.kernel.certificate import BeamDual
from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.beamforming.kernel.interior_point import refine

WIDTH = 4
"""Boxes of a problem that are split per round: a little best-first order for a lot of batching."""


def branch(
    group: Group,
    root: BeamDual,
    received: Tensor,
    achieved: Tensor,
    bound: Tensor,
    tolerance: float,
    boxes: int,
) -> tuple[Tensor, Tensor]:
    """Lower the bounds of a batch by branch and bound on the ENs' amplitudes.

    Parameters
    ----------
    root
        Dual points of the whole intervals, where every box starts from.
    received
        (B, K) |y_k| of the best beams known.
    achieved, bound
        (B,) their u and the bounds so far.
    tolerance
        Relative, on u: a problem is finished when its bound is within it of `achieved`.
    boxes
        How many boxes may be examined per problem, the root included.

    Returns
    -------
    (B,) bounds on u and (B,) int64 how many boxes were examined.
    """
    batch, _, nodes = group.error.shape
    owner = torch.arange(batch, device=bound.device)  # which problem an open box belongs to
    low = torch.zeros(batch, nodes, dtype=torch.float64, device=bound.device)
    high = torch.ones_like(low)
    value, point = bound, root
    examined = torch.ones_like(owner)
    aim = (1 + tolerance) * achieved
    while True:
        node, gain = _loosest(group, point, owner, low, high, tolerance * value)
        worth = (value > aim[owner]) & (gain > 0.1 * tolerance * value)
        # A problem whose largest box cannot be split is as tight as branching makes it.
        stuck = torch.zeros(batch, dtype=torch.bool, device=bound.device)
        stuck[owner[(value > aim[owner]) & ~worth]] = True
        worth &= ~stuck[owner] & (examined[owner] + 2 <= boxes)
        chosen = _largest(owner, torch.where(worth, value, -torch.inf), WIDTH)
        if not len(chosen):
            break
        row = torch.arange(len(chosen), device=bound.device)
        middle = (low[chosen] + high[chosen])[row, node[chosen]] / 2
        below, above = high[chosen], low[chosen]
        below[row, node[chosen]] = middle
        above[row, node[chosen]] = middle
        halves = chosen.repeat(2)
        mine = owner[halves]
        lows, highs = torch.cat([low[chosen], above]), torch.cat([below, high[chosen]])
        found, better = refine(
            group.take(mine),
            point.take(halves),
            received[mine],
            achieved[mine],
            lows,
            highs,
            tolerance / 2,
        )
        examined = examined.index_add(0, mine, torch.ones_like(mine))
        rest = torch.ones_like(owner, dtype=torch.bool)
        rest[chosen] = False
        kept = point.take(rest)
        value = torch.cat([value[rest], torch.minimum(found, value[halves])])
        owner = torch.cat([owner[rest], mine])
        low, high = torch.cat([low[rest], lows]), torch.cat([high[rest], highs])
        point = BeamDual(
            torch.cat([kept.weight, better.weight]),
            torch.cat([kept.slope, better.slope]),
            torch.cat([kept.price, better.price]),
        )
    return achieved.scatter_reduce(0, owner, value, "amax"), examined


def _largest(owner: Tensor, value: Tensor, count: int) -> Tensor:
    """Return the indices of the `count` largest finite values of every owner."""
    order = torch.argsort(value, descending=True, stable=True)
    order = order[torch.argsort(owner[order], stable=True)]
    sorted_owner = owner[order]
    first = torch.searchsorted(sorted_owner, sorted_owner, right=False)
    place = torch.arange(len(order), device=owner.device) - first
    return order[(place < count) & value[order].isfinite()]


def _loosest(
    group: Group, point: BeamDual, owner: Tensor, low: Tensor, high: Tensor, tie: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the EN of every box whose chord is off by most, and by how much at most.

    Only ENs count whose two ends (D h^2 - c h and D l^2 - c l) tie: elsewhere the relaxation has
    the EN at an end of its interval, where the chord is exact.
    """
    loss = (point.weight[:, None] @ group.error[owner])[:, 0]
    lead = (high - low) * (point.price * (high + low) - loss)
    gain = loss * (high - low) ** 2 / (4 * (low + high))
    gain = torch.where(lead <= tie[:, None], gain, 0.0)
    best = gain.max(-1)
    return best.indices, best.values
