"""Branching on the powers of ENs, where errors make the relaxation's chord loose.

norm(w_n) is replaced by its chord over [l_n^2, h_n^2] in the relaxation (certificate.py); the
narrower the interval, the smaller the chord's error eps (h - l)^2 / (4 (l + h)) at most. Splitting
the interval of the EN with the largest error into two and bounding both halves is a
branch-and-bound whose largest open bound is certified.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.solvers.beamforming.kernel.certificate import BeamDual, Box
from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.beamforming.kernel.interior_point import Reached, refine

WIDTH = 4
"""Boxes of a problem that are split per round: a little best-first order for a lot of batching."""


@dataclass(frozen=True)
class _Leaves:
    """Boxes that together cover all beams of their problems.

    Attributes
    ----------
    owner
        (m,) the problem that a box belongs to.
    box
        The amplitudes, m boxes.
    value
        (m,) certified bound on u of beams in the box.
    point
        The dual points behind `value`.
    """

    owner: Tensor
    box: Box
    value: Tensor
    point: BeamDual

    def take(self, index: Tensor) -> _Leaves:
        """Return the boxes that `index`, or a mask, selects."""
        return _Leaves(
            self.owner[index], self.box.take(index), self.value[index], self.point.take(index)
        )

    def joined(self, more: _Leaves) -> _Leaves:
        """Return these boxes followed by `more`."""
        return _Leaves(
            torch.cat([self.owner, more.owner]),
            self.box.joined(more.box),
            torch.cat([self.value, more.value]),
            self.point.joined(more.point),
        )


def branch(
    group: Group,
    root: BeamDual,
    reached: Reached,
    bound: Tensor,
    tolerance: float,
    boxes: int,
) -> tuple[Tensor, Tensor]:
    """Lower the bounds of a batch by branch and bound on the ENs' amplitudes.

    Parameters
    ----------
    group
        The problems.
    root
        Dual points of the whole intervals, where every box starts from.
    reached
        What the best beams known reach.
    bound
        (B,) the bounds on u so far.
    tolerance
        Relative, on u: a problem is finished when its bound is within it of what is reached.
    boxes
        How many boxes may be examined per problem, the root included.

    Returns
    -------
    (B,) bounds on u and (B,) int64 how many boxes were examined.
    """
    problems = torch.arange(len(bound), device=bound.device)
    leaves = _Leaves(problems, Box.whole(group), bound, root)
    examined = torch.ones_like(problems)
    enough = (1 + tolerance) * reached.value
    while True:
        # Split what keeps its problem open and can gain by it.
        node, gain = _loosest(group, leaves, tolerance * leaves.value)
        above = leaves.value > enough[leaves.owner]
        worth = above & (gain > 0.1 * tolerance * leaves.value)
        # A problem whose largest box cannot be split is as tight as branching makes it.
        stuck = torch.zeros_like(problems, dtype=torch.bool)
        stuck[leaves.owner[above & ~worth]] = True
        worth &= ~stuck[leaves.owner] & (examined[leaves.owner] + 2 <= boxes)
        chosen = _largest(leaves.owner, torch.where(worth, leaves.value, -torch.inf), WIDTH)
        if not len(chosen):
            break

        # Bound both halves. A half's bound is no more than that of its whole.
        box = _halves(leaves.box.take(chosen), node[chosen])
        twice = chosen.repeat(2)
        owner = leaves.owner[twice]
        value, point = refine(
            group.take(owner), leaves.point.take(twice), reached.take(owner), box, tolerance / 2
        )
        examined = examined.index_add(0, owner, torch.ones_like(owner))
        unsplit = torch.ones_like(leaves.owner, dtype=torch.bool)
        unsplit[chosen] = False
        value = torch.minimum(value, leaves.value[twice])
        leaves = leaves.take(unsplit).joined(_Leaves(owner, box, value, point))
    # A problem's bound is that of its largest box, and not below what its beams reach.
    return reached.value.scatter_reduce(0, leaves.owner, leaves.value, "amax"), examined


def _halves(box: Box, node: Tensor) -> Box:
    """Return the lower halves of m boxes, split at the middle of EN `node` (m,), then the upper."""
    row = torch.arange(len(node), device=node.device)
    middle = (box.low + box.high)[row, node] / 2
    below, above = box.high.clone(), box.low.clone()
    below[row, node] = middle
    above[row, node] = middle
    return Box(box.low, below).joined(Box(above, box.high))


def _largest(owner: Tensor, value: Tensor, count: int) -> Tensor:
    """Return the indices of the `count` largest finite values of every owner."""
    order = torch.argsort(value, descending=True, stable=True)
    order = order[torch.argsort(owner[order], stable=True)]
    sorted_owner = owner[order]
    begins = torch.searchsorted(sorted_owner, sorted_owner, right=False)
    rank = torch.arange(len(order), device=owner.device) - begins
    return order[(rank < count) & value[order].isfinite()]


def _loosest(group: Group, leaves: _Leaves, tie: Tensor) -> tuple[Tensor, Tensor]:
    """Return the EN of every box whose chord is off by most, and by how much at most.

    Only ENs count whose two ends (D h^2 - c h and D l^2 - c l) tie, up to `tie` (m,): elsewhere
    the relaxation has the EN at an end of its interval, where the chord is exact.
    """
    low, high = leaves.box.low, leaves.box.high
    loss = (leaves.point.weight[:, None] @ group.error[leaves.owner])[:, 0]
    lead = (high - low) * (leaves.point.price * (high + low) - loss)
    gain = loss * (high - low) ** 2 / (4 * (low + high))
    gain = torch.where(lead <= tie[:, None], gain, 0.0)
    best = gain.max(-1)
    return best.indices, best.values
