"""The programme whose solutions prove the bounds of `certificate.py`, with points and slacks.

For a target t that is to be proven unreachable, channels and errors are divided by the amplitudes
c_k = t + sum_n eps_kn h_n, so that (2) of `certificate.py` at u = t and full amplitudes becomes
1^T H 1 against sum_n D_n h_n^2. With b = E^T H 1 and y_n for what node n contributes,

    minimise sum_n y_n / 1^T H 1    s.t.  y_n >= D_n h_n^2,   y_n >= D_n l_n^2 + 2 b_n (h_n - l_n),
        blockdiag_n(D_n I) - sum_kj M_kj g_k g_j^H >= 0,   M_kk, D_n >= 0,   0 <= nu_kj <= s_kj(+-),

with H_kj = nu_kj. Below 1, t is out of reach: (E (h - q))^T H (E (h - q)) >= 0 is left out, and
chords replace q_n^2. This is an approximation from above, and what counts is `proven_bound`.
Without errors y_n = D_n, and there are no inequalities for it.

Everything is homogeneous, so the ratio is minimised as sum_n y_n - log(1^T H 1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.beamforming.arguments.certificate import Box, Messages

FRESH, WARM = 3.0, 0.2
"""Logarithmic gap of a start from nothing, and from the point of a box around."""

INSIDE = 0.05
"""Share of a mean that is mixed into a start, so that nothing is on its boundary."""


@dataclass(frozen=True)
class Point:
    """Dual points, in the scaled units above.

    Attributes
    ----------
    weight
        (B, K) M_kk.
    chord
        (B, P) nu of every pair, in the order of `np.triu_indices(K, 1)`.
    entry
        (B, P) complex, M_kj.
    price, top
        (B, N) D and y.
    """

    weight: FloatArray
    chord: FloatArray
    entry: ComplexArray
    price: FloatArray
    top: FloatArray

    def take(self, index: IntArray | BoolArray) -> Point:
        """Return the points that `index`, or a mask, selects."""
        return Point(*(getattr(self, f.name)[index] for f in fields(self)))

    def joined(self, more: Point) -> Point:
        """Return these points followed by `more`."""
        both = [(getattr(self, f.name), getattr(more, f.name)) for f in fields(self)]
        return Point(*(np.concatenate(pair) for pair in both))

    def moved(self, step: Point, length: FloatArray) -> Point:
        """Return the points after steps of (B,) lengths."""
        both = [(getattr(self, f.name), getattr(step, f.name)) for f in fields(self)]
        return Point(*(old + length[:, None] * move for old, move in both))

    def matrix(self) -> ComplexArray:
        """Return M (B, K, K)."""
        boxes, users = self.weight.shape
        first, second = np.triu_indices(users, 1)
        matrix = np.zeros((boxes, users, users), dtype=np.complex128)
        matrix[:, first, second] = self.entry
        matrix[:, second, first] = self.entry.conj()
        matrix[:, np.arange(users), np.arange(users)] = self.weight
        return matrix


@dataclass(frozen=True)
class Programme:
    """Programmes of B boxes.

    Attributes
    ----------
    columns
        (B, R, K) g_k / c_k; antennas that no user is heard by are turned away.
    error
        (B, K, N) eps_kn / c_k.
    upper, lower
        (B, P) exp(i (middle + half)) and exp(i (middle - half)).
    usable
        (B, P) the pairs whose half width is below pi / 2.
    low, high
        (B, N) the amplitudes of the box.
    """

    columns: ComplexArray
    error: FloatArray
    upper: ComplexArray
    lower: ComplexArray
    usable: BoolArray
    low: FloatArray
    high: FloatArray

    @property
    def robust(self) -> bool:
        """Some channel errs."""
        return bool(self.error.any())

    @property
    def pair_error(self) -> FloatArray:
        """(B, P, N) the errors of both users of a pair together."""
        first, second = np.triu_indices(self.error.shape[1], 1)
        return np.asarray(self.error[:, first] + self.error[:, second])

    @property
    def count(self) -> IntArray:
        """(B,) the number of complementary products."""
        _, rows, users = self.columns.shape
        per_node = 3 if self.robust else 1
        return np.asarray(rows + users + 3 * self.usable.sum(1) + per_node * self.low.shape[1])

    def take(self, index: IntArray | BoolArray) -> Programme:
        """Return the programmes that `index`, or a mask, selects."""
        return Programme(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True)
class State:
    """Where the interior-point method stands in B programmes.

    Attributes
    ----------
    point
        Dual points.
    slack, price
        What is left of every inequality, and the multipliers: of M_kk, the three of every pair, D,
        and with errors the two of y. Pairs that are not in use have slack 1.
    left
        (B, R, R) Z, what is left of the matrix inequality.
    covariance
        (B, R, R) X, its multiplier.
    length
        (B,) how far the last step went.
    """

    point: Point
    slack: list[FloatArray]
    price: list[FloatArray]
    left: ComplexArray
    covariance: ComplexArray
    length: FloatArray

    def take(self, index: IntArray | BoolArray) -> State:
        """Return the states that `index`, or a mask, selects."""
        return State(
            self.point.take(index),
            [each[index] for each in self.slack],
            [each[index] for each in self.price],
            self.left[index],
            self.covariance[index],
            self.length[index],
        )


def programme_of(messages: Messages, box: Box, amplitude: FloatArray) -> Programme:
    """Return the programmes of boxes.

    Parameters
    ----------
    messages, box
        B problems, and what is known of their beams.
    amplitude
        (B, K) c.
    """
    boxes, users, _, antennas = messages.channel.shape
    first, second = np.triu_indices(users, 1)
    channel = messages.channel / amplitude[:, :, None, None]
    if antennas > users:
        per_node = channel.transpose(0, 2, 3, 1)
        channel = np.asarray(np.linalg.qr(per_node, mode="r")).transpose(0, 3, 1, 2)
    columns = channel.reshape(boxes, users, -1).swapaxes(1, 2)
    middle, half = (x[:, first, second] for x in (box.arguments.middle, box.arguments.half))
    usable = half < np.pi / 2 - 1e-6
    half = np.where(usable, half, 0)
    return Programme(
        np.ascontiguousarray(columns),
        messages.error / amplitude[..., None],
        np.exp(1j * (middle + half)),
        np.exp(1j * (middle - half)),
        usable,
        box.low,
        box.high,
    )


def slacks(programme: Programme, point: Point) -> list[FloatArray]:
    """Return what is left of every inequality, in the order of `State`.

    Parameters
    ----------
    programme, point
        Programmes, and points of them.
    """
    entry, usable = point.entry, programme.usable
    left = [
        point.weight,
        np.where(usable, point.chord, 1),
        np.where(usable, (entry.conj() * programme.upper).real - point.chord, 1),
        np.where(usable, (entry.conj() * programme.lower).real - point.chord, 1),
        point.price,
    ]
    if programme.robust:
        left.append(point.top - programme.high**2 * point.price)
        left.append(point.top - programme.low**2 * point.price - lost(programme, point))
    return left


def lost(programme: Programme, point: Point) -> FloatArray:
    """Return 2 b_n (h_n - l_n), (B, N)."""
    by_user = (point.weight[:, None] @ programme.error)[:, 0]
    by_pair = (point.chord[:, None] @ programme.pair_error)[:, 0]
    return np.asarray(2 * (programme.high - programme.low) * (by_user + by_pair))


def left_over(programme: Programme, point: Point) -> ComplexArray:
    """Return Z = blockdiag_n(D_n I) - sum_kj M_kj g_k g_j^H, (B, R, R)."""
    columns = programme.columns
    rows = columns.shape[1]
    left = -(columns @ point.matrix() @ columns.conj().swapaxes(1, 2))
    left[:, np.arange(rows), np.arange(rows)] += _by_row(point.price, rows)
    return np.asarray((left + left.conj().swapaxes(1, 2)) / 2)


def complementarity(programme: Programme, state: State) -> FloatArray:
    """Return tr(X Z) and all products of slacks and multipliers, summed, (B,)."""
    total = (state.covariance.conj() * state.left).real.sum((1, 2))
    for i, (slack, price) in enumerate(zip(state.slack, state.price, strict=True)):
        product = np.where(programme.usable, slack * price, 0) if 1 <= i <= 3 else slack * price
        total = total + product.sum(1)
    return np.asarray(total)


def value_and_gap(programme: Programme, state: State) -> tuple[FloatArray, FloatArray]:
    """Return sum_n y_n / 1^T H 1 and about how far it is from the least one, (B,) each."""
    point = state.point
    total = point.weight.sum(1) + 2 * point.chord.sum(1)
    spent = (point.top if programme.robust else point.price).sum(1)
    return np.asarray(spent / total), np.asarray(complementarity(programme, state) / total)


def start(programme: Programme, around: Point | None) -> State:
    """Return a state well inside, central but for the primal residual.

    Parameters
    ----------
    programme
        Programmes.
    around
        Points of boxes around these; None to start afresh.
    """
    boxes, rows, users = programme.columns.shape
    usable = programme.usable
    if around is None:
        weight = np.full((boxes, users), 1.0 / users)
        chord, entry = np.zeros(usable.shape), np.zeros(usable.shape, dtype=np.complex128)
        price, spread, room = np.ones(programme.low.shape), FRESH, 0.6
    else:
        weight, price = (_mixed(x) for x in (around.weight, around.price))
        chord, entry, spread, room = around.chord, around.entry, WARM, 0.9

    # Every pair in use is brought inside its cone.
    centre = programme.upper * np.sqrt(programme.lower / programme.upper)
    centre *= np.sign((centre * programme.upper.conj()).real)
    cosine = (centre * programme.upper.conj()).real
    tiny = INSIDE * weight.mean(1, keepdims=True) / users
    entry = np.where(usable, entry + tiny * centre, 0)
    sides = [(entry.conj() * side).real for side in (programme.upper, programme.lower)]
    chord = np.minimum(0.9 * np.minimum(*sides), chord + 0.5 * tiny * cosine)
    chord = np.where(usable, np.maximum(chord, INSIDE * tiny * cosine), 0)

    # Prices are as large as the matrix inequality asks for, and a little more.
    point = Point(weight, chord, entry, price, price)
    root = np.sqrt(_by_row(price, rows))
    whole = programme.columns @ point.matrix() @ programme.columns.conj().swapaxes(1, 2)
    whole /= root[:, :, None] * root[:, None, :]
    price = price * np.maximum(np.linalg.eigvalsh(whole)[:, -1:], 1e-3) / room
    top = programme.high**2 * price
    if programme.robust:
        top = _mixed(np.maximum(top, programme.low**2 * price + lost(programme, point)))

    # The scale at which sum_n y_n - log(1^T H 1) is least.
    scale = 1 / top.sum(1, keepdims=True)
    point = Point(weight * scale, chord * scale, entry * scale, price * scale, top * scale)
    slack, left = slacks(programme, point), left_over(programme, point)
    mu = spread / programme.count
    return State(
        point,
        slack,
        [mu[:, None] / each for each in slack],
        left,
        mu[:, None, None] * np.linalg.inv(left),
        np.ones(boxes),
    )


def _mixed(value: FloatArray) -> FloatArray:
    return np.asarray(value + INSIDE * value.mean(1, keepdims=True))


def _by_row(price: FloatArray, rows: int) -> FloatArray:
    """Return the prices (B, N) of every row (B, R)."""
    return np.repeat(price, rows // price.shape[1], axis=1)
