"""One step of the interior-point method for the programmes of `programme.py`.

The direction is that of Helmberg, Rendl, Vanderbei, Wolkowicz (SIAM J. Optim. 6, 1996), Kojima,
Shindoh, Hara (SIAM J. Optim. 7, 1997) and Monteiro (SIAM J. Optim. 7, 1997): X is the multiplier of
the matrix inequality Z >= 0, and

    sum over j of [Re tr(A_i X A_j Z^-1) + (inequalities) + (logarithm)] dz_j = right-hand side.

Unknowns are M_kk, Re M_kj, Im M_kj, D and, with errors, y. nu is eliminated pair by pair. The
rank-one term of the logarithm and those of the second inequality of y, in which nu of all pairs
occurs, come in by the Woodbury formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.solvers.beamforming.arguments.programme import (
    Point,
    Programme,
    State,
    complementarity,
    left_over,
    slacks,
)

CENTRING = (0.2, 0.9)
"""The barrier parameter aims at this share of itself: after long steps, and after short ones."""

LONG = 0.3
"""A step of this length or more counts as long."""

NEAR_BOUNDARY = 0.9
"""Share of the way to the boundary that a step goes at most."""


@dataclass(frozen=True)
class _Places:
    """Where the unknowns stand in a vector: weights, real and imaginary parts, prices, tops."""

    users: int
    pairs: int
    nodes: int
    robust: bool

    @property
    def weight(self) -> slice:
        return slice(0, self.users)

    @property
    def real(self) -> slice:
        return slice(self.users, self.users + self.pairs)

    @property
    def imaginary(self) -> slice:
        return slice(self.users + self.pairs, self.users + 2 * self.pairs)

    @property
    def price(self) -> slice:
        begin = self.users + 2 * self.pairs
        return slice(begin, begin + self.nodes)

    @property
    def top(self) -> slice:
        begin = self.users + 2 * self.pairs + self.nodes
        return slice(begin, self.size)

    @property
    def size(self) -> int:
        return self.users + 2 * self.pairs + self.nodes * (2 if self.robust else 1)


@dataclass(frozen=True)
class _Eliminated:
    """What eliminating nu leaves: own (B, P) its curvature, mixed (B, P) that with M_kj."""

    own: FloatArray
    mixed: ComplexArray


def take_step(programme: Programme, state: State) -> State:
    """Take one step towards a smaller barrier parameter, or towards the central path.

    Raises
    ------
    numpy.linalg.LinAlgError
        The equations have no solution in float64.
    """
    _, _, users = programme.columns.shape
    places = _Places(users, programme.usable.shape[1], programme.low.shape[1], programme.robust)
    mu = complementarity(programme, state) / programme.count
    goal = (np.where(state.length >= LONG, *CENTRING) * mu)[:, None]
    factor = np.asarray(np.linalg.inv(np.linalg.cholesky(state.left)), dtype=np.complex128)
    inverse = factor.conj().swapaxes(1, 2) @ factor

    # The equations: matrix inequality, then linear inequalities, then the right-hand sides.
    hessian = _curvature(programme.columns, state.covariance, inverse, places)
    eliminated = _add_inequalities(programme, state, hessian, places)
    right, right_chord = _rank_terms(programme, state, places)
    dual = programme.columns.conj().swapaxes(1, 2) @ inverse @ programme.columns
    trace = np.diagonal(inverse, axis1=1, axis2=2).real.reshape(len(mu), places.nodes, -1).sum(-1)
    right[..., 0], right_chord[..., 0] = _gradient(programme, state, goal, dual, trace)
    step = _direction(hessian, right, right_chord, eliminated, places)
    return _moved(programme, state, step, goal, factor)


def _curvature(
    columns: ComplexArray, covariance: ComplexArray, inverse: ComplexArray, places: _Places
) -> FloatArray:
    """Return Re tr(A_i X A_j Z^-1), (B, m, m), zeros for y.

    With Y = G^H X G, P = G^H Z^-1 G and E_ab the unit matrices, tr(E_ab Y E_cd P) = Y_bc P_da.
    M_kj enters by E_kj and E_jk, its imaginary part by i E_kj - i E_jk.
    """
    through, relaxed = inverse @ columns, covariance @ columns
    y = columns.conj().swapaxes(1, 2) @ relaxed
    turned = (columns.conj().swapaxes(1, 2) @ through).swapaxes(1, 2)  # P^T
    boxes, rows, users = through.shape
    a, b = np.triu_indices(users, 1)
    k, r, i, d = places.weight, places.real, places.imaginary, places.price
    hessian = np.zeros((boxes, places.size, places.size))
    hessian[:, k, k] = (y * turned).real

    # One user against a pair (c, d): Y_kc P_dk and Y_kd P_ck.
    one, two = y[:, :, a] * turned[:, :, b], y[:, :, b] * turned[:, :, a]
    hessian[:, k, r] = (one + two).real
    hessian[:, k, i] = -(one - two).imag

    # Pairs (a, b) against pairs (c, d): Y_bc P_da, Y_bd P_ca, Y_ac P_db and Y_ad P_cb.
    ya, yb, pa, pb = y[:, a], y[:, b], turned[:, a], turned[:, b]
    t1, t2 = yb[:, :, a] * pa[:, :, b], yb[:, :, b] * pa[:, :, a]
    t3, t4 = ya[:, :, a] * pb[:, :, b], ya[:, :, b] * pb[:, :, a]
    hessian[:, r, r] = (t1 + t2 + t3 + t4).real
    hessian[:, r, i] = -(t1 - t2 + t3 - t4).imag
    hessian[:, i, i] = -(t1 - t2 - t3 + t4).real

    # Prices against users and pairs, by Q_n = F_n^H U_n, and against each other.
    per_node = (boxes, places.nodes, rows // places.nodes, users)
    q = through.reshape(per_node).conj().swapaxes(2, 3) @ relaxed.reshape(per_node)
    hessian[:, d, k] = -np.diagonal(q, axis1=2, axis2=3).real
    hessian[:, d, r] = -(q[:, :, b, a] + q[:, :, a, b]).real
    hessian[:, d, i] = (q[:, :, b, a] - q[:, :, a, b]).imag
    blocks = (boxes, places.nodes, rows // places.nodes, places.nodes, rows // places.nodes)
    hessian[:, d, d] = (covariance * inverse.conj()).real.reshape(blocks).sum((2, 4))

    for row, column in ((k, r), (k, i), (r, i), (d, k), (d, r), (d, i)):
        hessian[:, column, row] = hessian[:, row, column].swapaxes(1, 2)
    return hessian


def _add_inequalities(
    programme: Programme, state: State, hessian: FloatArray, places: _Places
) -> _Eliminated:
    """Add what the linear inequalities bend, but for the second one of y; eliminate nu."""
    usable, up, down = programme.usable, programme.upper, programme.lower
    ratio = [price / slack for slack, price in zip(state.slack, state.price, strict=True)]
    chord, above, below = (
        np.where(usable, x, y) for x, y in zip(ratio[1:4], (1.0, 0.0, 0.0), strict=True)
    )
    if not usable.all():  # pairs that are not in use do not move
        keep = np.ones(hessian.shape[:2])
        keep[:, places.real] = keep[:, places.imaginary] = usable
        hessian *= keep[:, :, None] * keep[:, None, :]
    own = chord + above + below
    mixed = -(above * up + below * down)
    size = np.arange(places.size)
    k, r, i, d = size[places.weight], size[places.real], size[places.imaginary], size[places.price]
    hessian[:, k, k] += ratio[0]
    hessian[:, r, r] += above * up.real**2 + below * down.real**2 - mixed.real**2 / own + ~usable
    hessian[:, i, i] += above * up.imag**2 + below * down.imag**2 - mixed.imag**2 / own + ~usable
    cross = above * up.real * up.imag + below * down.real * down.imag
    cross -= mixed.real * mixed.imag / own
    hessian[:, r, i] += cross
    hessian[:, i, r] += cross
    hessian[:, d, d] += ratio[4]
    if places.robust:
        y, high = size[places.top], programme.high**2
        hessian[:, d, d] += ratio[5] * high**2
        hessian[:, y, y] += ratio[5]
        hessian[:, d, y] -= ratio[5] * high
        hessian[:, y, d] -= ratio[5] * high
    return _Eliminated(own, mixed)


def _rank_terms(
    programme: Programme, state: State, places: _Places
) -> tuple[FloatArray, FloatArray]:
    """Return columns (B, m, c), and nu's part (B, P, c): room for the right-hand side, the
    logarithm's vector, and those of the second inequality of every y."""
    boxes, usable = len(programme.low), programme.usable
    width = 2 + (places.nodes if places.robust else 0)
    right = np.zeros((boxes, places.size, width))
    right_chord = np.zeros((boxes, places.pairs, width))
    total = _total(state.point)
    right[:, places.weight, 1] = 1 / total
    right_chord[..., 1] = np.where(usable, 2 / total, 0)
    if places.robust:
        root = np.sqrt(state.price[6] / state.slack[6])
        side = -2 * (programme.high - programme.low) * root
        node = np.arange(places.nodes)
        right[:, places.weight, 2:] = programme.error * side[:, None]
        right_chord[..., 2:] = programme.pair_error * side[:, None] * usable[..., None]
        right[:, np.arange(places.size)[places.price], 2 + node] = -(programme.low**2) * root
        right[:, np.arange(places.size)[places.top], 2 + node] = root
    return right, right_chord


def _gradient(
    programme: Programme, state: State, goal: FloatArray, dual: ComplexArray, trace: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the right-hand side (B, m), and nu's (B, P).

    Parameters
    ----------
    programme, state
        Programmes and where they stand.
    goal
        (B, 1) the barrier parameter aimed at.
    dual, trace
        (B, K, K) G^H Z^-1 G, and (B, N) the traces of the nodes' blocks of Z^-1.
    """
    usable, users = programme.usable, dual.shape[1]
    pull = [goal / slack for slack in state.slack]
    pull[1:4] = [np.where(usable, each, 0) for each in pull[1:4]]
    total = _total(state.point)
    first, second = np.triu_indices(users, 1)
    weight = pull[0] - goal * np.diagonal(dual, axis1=1, axis2=2).real + 1 / total
    force = pull[2] * programme.upper + pull[3] * programme.lower
    force = force - np.where(usable, 2 * goal * dual[:, first, second], 0)
    chord = np.where(usable, pull[1] - pull[2] - pull[3] + 2 / total, 0)
    price = pull[4] + goal * trace
    if not programme.robust:
        return np.concatenate([weight, force.real, force.imag, price - 1], axis=1), chord
    loss = 2 * (programme.high - programme.low) * pull[6]
    weight = weight - (programme.error @ loss[..., None])[..., 0]
    chord = chord - (programme.pair_error @ loss[..., None])[..., 0] * usable
    price = price - programme.high**2 * pull[5] - programme.low**2 * pull[6]
    top = pull[5] + pull[6] - 1
    return np.concatenate([weight, force.real, force.imag, price, top], axis=1), chord


def _direction(
    hessian: FloatArray,
    right: FloatArray,
    right_chord: FloatArray,
    eliminated: _Eliminated,
    places: _Places,
) -> Point:
    """Solve the equations: nu eliminated, then put back, then the Woodbury formula."""
    own, mixed = eliminated.own[..., None], eliminated.mixed[..., None]
    reduced = right.copy()
    reduced[:, places.real] -= mixed.real * right_chord / own
    reduced[:, places.imaginary] -= mixed.imag * right_chord / own
    solved = np.linalg.solve(hessian, reduced)
    bent = mixed.real * solved[:, places.real] + mixed.imag * solved[:, places.imaginary]
    chord = (right_chord - bent) / own

    inner = right[..., 1:].swapaxes(1, 2) @ solved + right_chord[..., 1:].swapaxes(1, 2) @ chord
    small = inner[..., 1:] + np.eye(inner.shape[1])
    share = np.linalg.solve(small, inner[..., :1])
    step = (solved[..., :1] - solved[..., 1:] @ share)[..., 0]
    price = step[:, places.price]
    return Point(
        step[:, places.weight],
        (chord[..., :1] - chord[..., 1:] @ share)[..., 0],
        step[:, places.real] + 1j * step[:, places.imaginary],
        price,
        step[:, places.top] if places.robust else np.zeros_like(price),
    )


def _moved(
    programme: Programme, state: State, step: Point, goal: FloatArray, factor: ComplexArray
) -> State:
    """Return the state after the step, of one length for the point and one for the multipliers."""
    usable = programme.usable
    moves = slacks(programme, step)
    moves[1:4] = [np.where(usable, move, 0) for move in moves[1:4]]
    turns = [
        (goal - price * move) / slack - price
        for slack, price, move in zip(state.slack, state.price, moves, strict=True)
    ]
    turns[1:4] = [np.where(usable, turn, 0) for turn in turns[1:4]]
    change = left_over(programme, step)
    inverse = factor.conj().swapaxes(1, 2) @ factor
    product = state.covariance @ change @ inverse
    product = (product + product.conj().swapaxes(1, 2)) / 2
    swing = goal[..., None] * inverse - state.covariance - product

    # As far as slacks, multipliers and both matrices stay positive.
    limit = np.maximum(_blocked(factor, change), _blocking(state.slack, moves))
    try:
        root = np.asarray(np.linalg.inv(np.linalg.cholesky(state.covariance)), np.complex128)
        blocked = _blocked(root, swing)
    except np.linalg.LinAlgError:  # the multiplier stays as it is
        blocked = np.full(len(limit), np.inf)
    length = NEAR_BOUNDARY / np.maximum(limit, NEAR_BOUNDARY)
    limit = np.maximum(blocked, _blocking(state.price, turns))
    dual_length = NEAR_BOUNDARY / np.maximum(limit, NEAR_BOUNDARY)
    point = state.point.moved(step, length)
    return State(
        point,
        slacks(programme, point),
        [old + dual_length[:, None] * turn for old, turn in zip(state.price, turns, strict=True)],
        left_over(programme, point),
        state.covariance + dual_length[:, None, None] * swing,
        np.minimum(length, dual_length),
    )


def _blocked(factor: ComplexArray, change: ComplexArray) -> FloatArray:
    """Return (B,) 1 / the step at which L L^H + step * change is singular, L^-1 = `factor`."""
    whitened = factor @ change @ factor.conj().swapaxes(1, 2)
    return np.asarray(-np.linalg.eigvalsh(whitened)[:, 0])


def _blocking(values: list[FloatArray], moves: list[FloatArray]) -> FloatArray:
    """Return (B,) 1 / the step at which the first of some positive numbers is 0."""
    each = [(-move / value).max(1) for value, move in zip(values, moves, strict=True)]
    return np.asarray(np.max(each, axis=0))


def _total(point: Point) -> FloatArray:
    """Return 1^T H 1, (B, 1)."""
    return np.asarray((point.weight.sum(1) + 2 * point.chord.sum(1))[:, None])
