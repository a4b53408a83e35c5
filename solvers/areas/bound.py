"""The certified lower bound of an instance with areas (docs/areas.md, "Bound").

    D >= sum over areas a of [ sum over classes c of s_c min over paths of sum_t
             ( lambda_t . X_t + min{ w_a (tau + b(Q)),  theta tau + theta' v(Q) } )  -  lambda . S ]

for every lambda >= 0 and all shares theta, theta' >= 0 that sum to at most 1 over the areas that
need the class in the slot. The left term sends the class locally, at a certified upper bound of the
rate; the right one bears the area's shares of a wide message. Interference only lowers rates: it is
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.areas.tables import AreaTables, Whole
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.dynamic_programme import (
    Paths,
    by_second_way,
    cheapest_paths,
    cost_to_go,
)
from finecast.solvers.rounding import EPSILON, SUM_ALLOWANCE

STEPS = 50
"""Most steps of the ascent, after those that came before."""

SHARE_STEP = 0.3
"""Exponent of the largest share in the first step of exponentiated gradient."""

PRICE_STEP = 0.03
"""First step of a storage price, as a share of the bound over all storage."""

PATIENCE = 40
"""Steps without progress after which the ascent ends."""

PROGRESS = 1e-5
"""Relative rise of the bound that counts as progress."""


@dataclass(frozen=True, eq=False)
class Shares:
    """What every area bears of the cost of a wide message.

    Attributes
    ----------
    migration, broadcast
        (T, A, C) theta and theta', at least 0; their sums over the areas are at most 1.
    """

    migration: FloatArray
    broadcast: FloatArray

    def normalised(self) -> Shares:
        """Return the shares with sums of at most 1, rounding included."""
        return Shares(_normalised(self.migration), _normalised(self.broadcast))


def _normalised(share: FloatArray) -> FloatArray:
    total = share.sum(axis=1, keepdims=True)
    # A sum of A terms errs by less than A roundings, and each quotient by one.
    slack = 1.0 + (share.shape[1] + 2) * EPSILON
    return np.asarray(share / np.where(total > 0, total * slack, 1.0))


@dataclass(frozen=True, eq=False)
class AreaPoint:
    """The part of one area in the bound.

    Attributes
    ----------
    value
        Its term of the sum, s, not padded.
    size
        Sum of the sizes of its terms, s.
    paths, wide
        A cheapest path of every class, and (T, C_a) whether it goes wide.
    cost
        (C_a,) s, that of the class at the prices.
    excess
        (T, N_a) bytes cached beyond the storage.
    """

    value: float
    size: float
    paths: Paths
    wide: BoolArray
    cost: FloatArray
    excess: FloatArray


@dataclass(frozen=True, eq=False)
class WholePoint:
    """The bound at one dual-feasible point.

    Attributes
    ----------
    bound
        Certified lower bound on D, s.
    prices
        Per area (T, N_a) storage prices, s/byte.
    shares
        Of the cost of wide messages.
    parts
        Of the areas.
    """

    bound: float
    prices: tuple[FloatArray, ...]
    shares: Shares
    parts: tuple[AreaPoint, ...]


def area_point(tables: AreaTables, price: FloatArray, shares: Shares, a: int) -> AreaPoint:
    """Return the part of area `a` at storage prices (T, N_a) and shares."""
    classes = tables.at_shares(shares.migration[:, a], shares.broadcast[:, a])
    class_of = np.arange(len(classes.size))
    values = cost_to_go(classes, class_of, price[:, :, None], tables.weights)
    paths = cheapest_paths(classes, class_of, values, tables.weights)
    gain = float(classes.size @ values.value)
    rent = float((price * tables.storage).sum())
    return AreaPoint(
        value=gain - rent,
        size=gain + rent,
        paths=paths,
        wide=by_second_way(classes, class_of, paths, tables.weights),
        cost=classes.size * values.value,
        excess=classes.holds(class_of, paths.cached) @ classes.size - tables.storage,
    )


def whole_point(
    tables: Sequence[AreaTables], prices: Sequence[FloatArray], shares: Shares
) -> WholePoint:
    """Return the bound at a point, exactly, less an allowance for rounding.

    All terms are non-negative but the rents. A value is a sum of at most T (2 N_a + 6) terms, and
    the sums over classes and areas add theirs, as in `finecast.solvers.placement.bound.dual_point`.

    Parameters
    ----------
    tables
        Of every area.
    prices
        Per area (T, N_a), at least 0.
    shares
        As they are; the point is that of the normalised shares.

    Raises
    ------
    ValueError
        A price or a share is negative or not finite.
    """
    for name, arrays in (
        ("prices", tuple(prices)),
        ("shares", (shares.migration, shares.broadcast)),
    ):
        if not all(np.isfinite(array).all() and (array >= 0).all() for array in arrays):
            raise ValueError(f"{name}: all must be finite and >= 0")
    shares = shares.normalised()
    parts = tuple(
        area_point(area, price, shares, a)
        for a, (area, price) in enumerate(zip(tables, prices, strict=True))
    )
    allowance = sum(
        2.0 * EPSILON * part.size * (_roundings(area) + len(tables))
        for area, part in zip(tables, parts, strict=True)
    )
    value = sum(part.value for part in parts)
    bound = max(0.0, value * (1.0 - SUM_ALLOWANCE) - allowance)
    return WholePoint(bound, tuple(prices), shares, parts)


def _roundings(area: AreaTables) -> int:
    slots, classes = area.classes.needed.shape
    return int(slots * (2 * len(area.storage) + 6) + classes + 4)


def first_shares(whole: Whole, tables: Sequence[AreaTables]) -> Shares:
    """Return shares in proportion to what the class costs locally where all nodes hold it.

    With these, areas that cost the same everywhere agree on whether to send wide, and no part of
    the smaller of the two sums is lost.
    """
    local = np.zeros(whole.takes_part.shape)
    for a, area in enumerate(tables):
        mine = np.flatnonzero(area.of_whole >= 0)
        seconds = area.weights.broadcast[:, None] * area.classes.broadcast[:, -1]
        local[:, a, area.of_whole[mine]] = seconds[:, mine]
    return Shares(local, local).normalised()


def raise_bound(
    tables: Sequence[AreaTables],
    start: tuple[Sequence[FloatArray], Shares],
    *,
    steps: int = STEPS,
    taken: int = 0,
    deadline: Deadline = NEVER,
) -> WholePoint:
    """Return the best point that exponentiated gradient finds.

    Prices take steps of AdaGrad (J. Duchi, E. Hazan, Y. Singer, JMLR 12 (2011) 2121-2159), shares
    those of exponentiated gradient (J. Kivinen, M. Warmuth, Information and Computation 132 (1997)
    1-63), both shorter with the root of their number.

    Parameters
    ----------
    tables
        Of every area.
    start
        Prices and shares to start from.
    steps
        Most steps.
    taken
        Steps taken before to get to the start, at about the same rates: those to come are as
        short as if these went on.
    deadline
        When to stop; whatever was found holds.
    """
    prices, shares = start
    point = best = whole_point(tables, prices, shares)
    store = sum(float(area.storage.sum()) for area in tables) * len(tables[0].weights.migration)
    unit = PRICE_STEP * best.bound / max(store, 1.0)
    squares = [
        taken * _slope(area, part) ** 2 for area, part in zip(tables, point.parts, strict=True)
    ]
    known, since = best.bound, 0
    for step in range(taken + 1, taken + steps + 1):
        if deadline.over() or since >= PATIENCE:
            break
        new_prices = []
        for area, part, price, square in zip(
            tables, point.parts, point.prices, squares, strict=True
        ):
            slope = _slope(area, part)
            square += slope**2
            with np.errstate(invalid="ignore", divide="ignore"):
                change = np.where(square > 0, slope / np.sqrt(square), 0.0)
            new_prices.append(np.maximum(0.0, price + unit * change))
        length = SHARE_STEP / np.sqrt(step)
        moved, sent = _wide_seconds(tables, point)
        shares = Shares(
            point.shares.migration * np.exp(length * moved),
            point.shares.broadcast * np.exp(length * sent),
        )
        point = whole_point(tables, new_prices, shares)
        if point.bound > best.bound:
            best = point
        since = 0 if best.bound > known * (1.0 + PROGRESS) else since + 1
        known = max(known, best.bound) if since == 0 else known
    return best


def _wide_seconds(tables: Sequence[AreaTables], point: WholePoint) -> tuple[FloatArray, FloatArray]:
    """Return (T, A, C) migrations and broadcasts of what goes wide, over the largest of any area.

    These are the supergradients of the shares, scaled so that they are at most 1.
    """
    moved, sent = np.zeros((2, *point.shares.migration.shape))
    for a, (area, part) in enumerate(zip(tables, point.parts, strict=True)):
        mine = np.flatnonzero(area.of_whole >= 0)
        assert area.classes.second is not None
        seconds = np.take_along_axis(
            area.classes.second.broadcast, part.paths.sender[:, None], axis=1
        )[:, 0]
        moved[:, a, area.of_whole[mine]] = np.where(part.wide, part.paths.migration, 0.0)[:, mine]
        sent[:, a, area.of_whole[mine]] = np.where(part.wide, seconds, 0.0)[:, mine]
    return _over_largest(moved), _over_largest(sent)


def _over_largest(seconds: FloatArray) -> FloatArray:
    top = seconds.max(axis=1, keepdims=True)
    return np.asarray(seconds / np.where(top > 0, top, 1.0))


def _slope(area: AreaTables, part: AreaPoint) -> FloatArray:
    """Return (T, N_a) what is cached beyond the storage, in mean storages."""
    return np.asarray(part.excess / max(float(area.storage.mean()), 1.0))


def no_prices(tables: Sequence[AreaTables]) -> tuple[FloatArray, ...]:
    """Return storage prices of zero for every area."""
    slots = len(tables[0].weights.migration)
    return tuple(np.zeros((slots, len(area.storage))) for area in tables)


def local_senders(area: AreaTables, point: AreaPoint) -> tuple[IntArray, IntArray, IntArray]:
    """Return slots, classes and senders (B,) of what goes out locally on the paths of a point."""
    slot, kind = np.nonzero(area.classes.needed & ~point.wide)
    return slot, kind, point.paths.sender[slot, kind]
