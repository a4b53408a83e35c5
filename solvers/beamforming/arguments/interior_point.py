"""Dual points for the bounds of `certificate.py`, by a batched primal-dual interior-point method.

The programme is in `programme.py`, a step in `steps.py`. Every iterate, converged or not, gives a
valid bound once it goes through `proven_bound`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.beamforming.arguments.certificate import Box, Messages, proven_bound
from finecast.solvers.beamforming.arguments.programme import (
    Point,
    Programme,
    State,
    programme_of,
    start,
    value_and_gap,
)
from finecast.solvers.beamforming.arguments.steps import take_step

ITERATIONS = 40
"""Most steps of a problem."""

FINISHED = 0.03
"""A problem is finished when its gap is below this share of what its bound is above the target.
Looser points mislead the tree: it splits the wrong pairs, ten times as many."""

SMALLEST_GAP = 1e-5
"""Relative gap, on u^2, at which a problem is finished in any case."""


@dataclass(frozen=True)
class Solved:
    """What the relaxations of B boxes give.

    Attributes
    ----------
    bound
        (B,) certified bound on u.
    matrix, price
        (B, K, K) and (B, N), the guesses of M and D that prove it.
    point
        Interior points, to start boxes within from.
    received
        (B, K, K) Y_kj, the relaxed y_k conj(y_j), up to scale.
    amplitude
        (B, N) relaxed share of each node's interval of p_n = norm(w_n)^2 that is used.
    """

    bound: FloatArray
    matrix: ComplexArray
    price: FloatArray
    point: Point
    received: ComplexArray
    amplitude: FloatArray

    def take(self, index: IntArray | BoolArray) -> Solved:
        """Return the boxes that `index`, or a mask, selects."""
        return Solved(
            self.bound[index],
            self.matrix[index],
            self.price[index],
            self.point.take(index),
            self.received[index],
            self.amplitude[index],
        )

    def joined(self, more: Solved) -> Solved:
        """Return these boxes followed by `more`."""
        return Solved(
            np.concatenate([self.bound, more.bound]),
            np.concatenate([self.matrix, more.matrix]),
            np.concatenate([self.price, more.price]),
            self.point.joined(more.point),
            np.concatenate([self.received, more.received]),
            np.concatenate([self.amplitude, more.amplitude]),
        )


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def solve_boxes(
    messages: Messages, box: Box, target: FloatArray, around: Point | None = None
) -> Solved:
    """Bound the beams within boxes.

    Parameters
    ----------
    messages, box
        B problems, and what is known of their beams.
    target
        (B,) u > 0 that is to be proven unreachable; a problem ends when it is, or cannot be.
    around
        Points of boxes around these; None to start afresh.

    Examples
    --------
    One node, users of gains 1 and -1, whose amplitude is 1 at most. With signals that agree in
    argument up to an eighth of a turn there is no beam at all, and 1/2 is proven out of reach.

    >>> messages = Messages(np.array([[[[1 + 0j]], [[-1 + 0j]]]]), np.zeros((1, 2, 1)))
    >>> box, target = Box.whole(messages), np.array([0.5])
    >>> bool(1 <= solve_boxes(messages, box, target).bound[0] < 1.02)
    True
    >>> box.arguments.half[0, 0, 1] = box.arguments.half[0, 1, 0] = np.pi / 4
    >>> bool(solve_boxes(messages, box, target).bound[0] < 0.5)
    True
    """
    boxes, users, nodes, _ = messages.channel.shape
    amplitude = target[:, None] + (messages.error @ box.high[..., None])[..., 0]
    programme = programme_of(messages, box, amplitude)
    state, place = start(programme, around), np.arange(boxes)
    answer = _nothing(boxes, users, nodes)
    for turn in range(ITERATIONS + 1):
        # Problems leave when the target is out of reach, when it cannot be, or when time is over.
        value, gap = value_and_gap(programme, state)
        ended = value <= 1 - 1e-9
        ended |= gap <= np.maximum(FINISHED * (value - 1), SMALLEST_GAP)
        ended |= ~np.isfinite(value) | (turn == ITERATIONS)
        _put(answer, place[ended], programme.take(ended), state.take(ended))
        place, programme, state = place[~ended], programme.take(~ended), state.take(~ended)
        if not len(place):
            break
        try:
            state = take_step(programme, state)
        except np.linalg.LinAlgError:  # as good as float64 makes them
            _put(answer, place, programme, state)
            break

    # Back to the units of the problems.
    matrix = answer.matrix / (amplitude[:, :, None] * amplitude[:, None, :])
    bound = proven_bound(messages, box, matrix, answer.price)
    return replace(answer, bound=bound, matrix=matrix)


def _nothing(boxes: int, users: int, nodes: int) -> Solved:
    """Return answers that prove nothing, to be filled in."""
    pairs = users * (users - 1) // 2
    matrix = np.zeros((boxes, users, users), dtype=np.complex128)
    entry = np.zeros((boxes, pairs), dtype=np.complex128)
    node = np.ones((boxes, nodes))
    point = Point(np.ones((boxes, users)), np.zeros((boxes, pairs)), entry, node, node.copy())
    return Solved(np.full(boxes, np.inf), matrix, node.copy(), point, matrix.copy(), node.copy())


def _put(answer: Solved, place: IntArray, programme: Programme, state: State) -> None:
    """Fill in the answers of the problems `place`; those that are no numbers prove nothing."""
    finite = [np.isfinite(x).all((1, 2)) for x in (state.point.matrix(), state.covariance)]
    sound = np.asarray(finite[0] & finite[1])
    place, programme, state = place[sound], programme.take(sound), state.take(sound)
    columns = programme.columns
    answer.received[place] = columns.conj().swapaxes(1, 2) @ state.covariance @ columns
    answer.matrix[place], answer.price[place] = state.point.matrix(), state.point.price
    for f in fields(Point):
        getattr(answer.point, f.name)[place] = getattr(state.point, f.name)
    if programme.robust and len(place):
        upper, lower = state.price[5], state.price[6]
        answer.amplitude[place] = upper / np.maximum(upper + lower, 1e-300)
