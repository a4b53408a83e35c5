"""The tree: boxes of arguments and amplitudes, split until the best beam known is proven.

The box with the largest bound goes first. What is split is the pair of users whose relaxed signals
agree least in argument for their weight, into four quarters and then into halves; or, where errors
make the chord of an amplitude loose, the amplitude of a node. The largest bound of any open box
bounds the problem. On the way the relaxed beams of the open boxes give phases, from which
second-order cone steps (`kernel/cones.py`) look for better beams.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.beamforming.arguments.certificate import Box, Messages
from finecast.solvers.beamforming.arguments.interior_point import Solved, solve_boxes
from finecast.solvers.beamforming.arguments.intervals import propagated, split
from finecast.solvers.beamforming.kernel.cones import ROUGH, ConeSteps
from finecast.solvers.deadline import NEVER, Deadline

WIDTH = 8
"""Boxes of a problem that are split per round: a little best-first order for a lot of batching."""

CHORD_SHARE = 0.3
"""An amplitude is split where its chord is off by this share of what the bound is too high."""

NARROWEST = 1e-4
"""Intervals with less than this half width, rad, are not split any more."""

MOST_PARTS = 4
"""Parts of a split, at most."""


@dataclass(frozen=True)
class _Leaves:
    """Boxes that together cover all beams of their problems that may be better than those known.

    Attributes
    ----------
    owner
        (m,) the problem that a box belongs to.
    box
        What is known of beams in it.
    value
        (m,) certified bound on u of beams in the box.
    solved
        The relaxations.
    """

    owner: IntArray
    box: Box
    value: FloatArray
    solved: Solved

    def take(self, index: IntArray | BoolArray) -> _Leaves:
        return _Leaves(
            self.owner[index], self.box.take(index), self.value[index], self.solved.take(index)
        )

    def joined(self, more: _Leaves) -> _Leaves:
        return _Leaves(
            np.concatenate([self.owner, more.owner]),
            self.box.joined(more.box),
            np.concatenate([self.value, more.value]),
            self.solved.joined(more.solved),
        )


@dataclass(frozen=True)
class Grown:
    """What the trees of a batch of problems found.

    Attributes
    ----------
    bound
        (B,) certified bound on u, no larger than the one given.
    beam
        (B, N, A), for unit powers, the best beams known.
    value
        (B,) their u.
    examined
        (B,) boxes bounded, the root included.
    """

    bound: FloatArray
    beam: ComplexArray
    value: FloatArray
    examined: IntArray


def grow(
    messages: Messages,
    beam: ComplexArray,
    value: FloatArray,
    bound: FloatArray,
    scale: FloatArray,
    tolerance: float,
    nodes: int,
    deadline: Deadline = NEVER,
) -> Grown:
    """Lower the bounds of a batch of problems, and raise what their beams reach.

    Parameters
    ----------
    messages
        B problems of one size with unit powers.
    beam, value
        (B, N, A) the best beams known, and what they reach, u > 0.
    bound
        (B,) bounds on u so far.
    scale
        (B,) SNR is (u scale)^2.
    tolerance
        Relative, on log(1 + SNR): a problem is finished when its bound is within it.
    nodes
        How many boxes may be bounded per problem.
    deadline
        When to end at the latest.

    Examples
    --------
    One node with one antenna gives two users of gain 1 the amplitude 1, whatever their arguments.

    >>> messages = Messages(np.array([[[[1 + 0j]], [[1j]]]]), np.zeros((1, 2, 1)))
    >>> half = np.full((1, 1, 1), 0.5 + 0j)
    >>> grown = grow(messages, half, np.array([0.5]), np.array([3.0]), np.ones(1), 1e-3, 10)
    >>> grown.value.round(6), grown.bound.round(3), grown.examined
    (array([1.]), array([1.]), array([1]))
    """
    problems = np.arange(len(value))
    beam, value, bound = beam.copy(), value.copy(), bound.copy()
    steps: dict[int, ConeSteps] = {}

    def enough() -> FloatArray:
        return np.sqrt(np.expm1((1 + tolerance) * np.log1p((value * scale) ** 2))) / scale

    # The root, where nothing is known of arguments.
    open_ = problems[bound > enough()]
    if nodes < 1 or not len(open_) or deadline.over():
        return Grown(bound, beam, value, np.zeros_like(problems))
    own = messages.take(open_)
    box = Box.whole(own)
    solved = solve_boxes(own, box, enough()[open_])
    leaves = _Leaves(open_, box, np.minimum(solved.bound, bound[open_]), solved)
    bound[open_] = leaves.value
    examined = np.zeros_like(problems)
    examined[open_] = 1
    closed = value.copy()  # the largest bound of the boxes that are done with
    while True:
        # Better beams first, from the largest box of every problem: what they close is saved.
        for i in _largest(leaves, leaves.value > enough()[leaves.owner], 1):
            b = int(leaves.owner[i])
            if b not in steps:
                steps[b] = ConeSteps(messages.channel[b], messages.error[b])
            found, _ = steps[b].climb(_phases(leaves.solved.received[i]), ROUGH)
            full = steps[b].full(found, messages.channel.shape[2])
            reached = _reached(messages, b, full)
            if reached > value[b]:
                beam[b], value[b] = full, reached
        limit = enough()

        # Boxes without a better beam are closed.
        done = leaves.value <= limit[leaves.owner]
        np.maximum.at(closed, leaves.owner[done], leaves.value[done])
        leaves = leaves.take(~done)
        np.maximum(closed, value, out=closed)
        bound = _bounds(bound, closed, leaves, examined)
        if not len(leaves.owner) or deadline.over():
            break

        # The boxes with the largest bounds are split, up to the limit of boxes. Arguments that no
        # beam has are no boxes.
        room = nodes - examined[leaves.owner]
        wide = leaves.box.arguments.half.max((1, 2)) > NARROWEST
        chosen = _largest(leaves, wide & (room >= MOST_PARTS), WIDTH)
        rank = np.arange(len(chosen)) - np.searchsorted(leaves.owner[chosen], leaves.owner[chosen])
        chosen = chosen[(rank + 1) * MOST_PARTS <= room[chosen]]
        if not len(chosen):
            break
        owner, box, parent = _children(messages, leaves.take(chosen), limit)
        narrowed, possible = propagated(box.arguments)
        box = Box(narrowed, box.low, box.high).take(possible)
        owner, parent = owner[possible], chosen[parent[possible]]
        kept = leaves.take(np.setdiff1d(np.arange(len(leaves.owner)), chosen))
        if len(owner):
            # The bound of a part is no more than that of the whole.
            point = leaves.solved.point.take(parent)
            solved = solve_boxes(messages.take(owner), box, limit[owner], point)
            part_value = np.minimum(solved.bound, leaves.value[parent])
            kept = kept.joined(_Leaves(owner, box, part_value, solved))
            examined += np.bincount(owner, minlength=len(problems))
        leaves = kept
    return Grown(bound, beam, value, examined)


def _bounds(
    bound: FloatArray, closed: FloatArray, leaves: _Leaves, examined: IntArray
) -> FloatArray:
    """Return (B,) the largest bound of any box, no larger than before."""
    largest = closed.copy()
    np.maximum.at(largest, leaves.owner, leaves.value)
    return np.where(examined > 0, np.minimum(bound, largest), bound)


def _reached(messages: Messages, index: int, beam: ComplexArray) -> float:
    """Return u of a beam (N, A)."""
    received = np.abs(np.einsum("kna,na->k", messages.channel[index].conj(), beam))
    return float((received - messages.error[index] @ np.linalg.norm(beam, axis=1)).min())


def _phases(received: ComplexArray) -> ComplexArray:
    """Return (K,) phases of the largest eigenvector of Y_kj / root(Y_kk Y_jj)."""
    size = np.sqrt(np.maximum(np.diagonal(received).real, 1e-300))
    _, vectors = np.linalg.eigh(received / (size[:, None] * size))
    vector = vectors[:, -1]
    return np.asarray(np.where(vector == 0, 1, vector) / np.where(vector == 0, 1, np.abs(vector)))


def _largest(leaves: _Leaves, allowed: BoolArray, count: int) -> IntArray:
    """Return the indices of the `count` largest values allowed of every owner, owner by owner."""
    order = np.lexsort((-leaves.value, leaves.owner))
    order = order[allowed[order]]
    owner = leaves.owner[order]
    rank = np.arange(len(order)) - np.searchsorted(owner, owner)
    return np.asarray(order[rank < count])


def _children(
    messages: Messages, leaves: _Leaves, limit: FloatArray
) -> tuple[IntArray, Box, IntArray]:
    """Return owners, boxes and parents' numbers of the parts that boxes are split into."""
    row = np.arange(len(leaves.owner))
    half = leaves.box.arguments.half
    users = half.shape[1]
    weight = np.abs(leaves.solved.matrix).sum(2)
    y = leaves.solved.received
    size = np.sqrt(np.maximum(np.diagonal(y, axis1=1, axis2=2).real, 1e-300))
    spread = 1 - np.abs(y) / (size[:, :, None] * size[:, None, :])
    score = np.maximum(spread, 1e-9) * weight[:, :, None] * weight[:, None, :]
    score *= np.minimum(half, np.pi / 2)
    score = np.where(half > NARROWEST, np.triu(score, 1), -1)
    best = score.reshape(len(row), -1).argmax(1)
    first, second = np.divmod(best, users)

    # Where the chord of an amplitude is off by more.
    error = messages.error[leaves.owner]
    node = np.zeros(len(row), dtype=np.int64)
    by_amplitude = np.zeros(len(row), dtype=bool)
    low, high = leaves.box.low, leaves.box.high
    if error.any():
        loss = (weight[:, None] @ error)[:, 0] / np.maximum(weight.sum(1), 1e-300)[:, None]
        square = low**2 + leaves.solved.amplitude * (high**2 - low**2)
        off = loss * (np.sqrt(square) - (square + low * high) / np.maximum(low + high, 1e-9))
        node = off.argmax(1)
        excess = leaves.value - limit[leaves.owner]
        by_amplitude = off[row, node] > CHORD_SHARE * excess
    quarters = (half[row, first, second] >= np.pi) & ~by_amplitude
    halves = ~quarters & ~by_amplitude

    parts, parents = [], []
    for chosen, count in ((np.flatnonzero(quarters), 4), (np.flatnonzero(halves), 2)):
        if len(chosen):
            part = leaves.box.take(np.tile(chosen, count))
            arguments = split(
                leaves.box.arguments.take(chosen), first[chosen], second[chosen], count
            )
            parts.append(Box(arguments, part.low, part.high))
            parents.append(np.tile(chosen, count))
    chosen = np.flatnonzero(by_amplitude)
    if len(chosen):
        middle = ((low + high) / 2)[chosen, node[chosen]]
        below, above = leaves.box.take(chosen), leaves.box.take(chosen)
        below.high[np.arange(len(chosen)), node[chosen]] = middle
        above.low[np.arange(len(chosen)), node[chosen]] = middle
        parts.append(below.joined(above))
        parents.append(np.tile(chosen, 2))
    box = parts[0]
    for more in parts[1:]:
        box = box.joined(more)
    parent = np.concatenate(parents)
    return leaves.owner[parent], box, parent
