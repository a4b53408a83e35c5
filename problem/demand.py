"""Demand: who requests which model when, and what is known of it beforehand.

In slot t user k is active with probability activity[k], independently of all else. An active user
repeats its last request with probability `persistence`, otherwise, and when it has none, it draws
afresh from preference[t, k]. So the last request is a Markov chain, and all that the past tells.
See docs/formulation.md section 1 (r, p).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import FloatArray, IntArray, checked, checked_number
from finecast.problem.tolerances import PROBABILITY


@dataclass(frozen=True, eq=False)
class Demand:
    """The demand model: what is known before slot 0.

    Parameters
    ----------
    preference
        (T, K, M), rows sum to 1: distribution of a fresh draw of user k in slot t.
    persistence
        Probability in [0, 1] that an active user repeats its last request.
    activity
        (K,), probability in [0, 1] that user k requests something in a slot.

    Raises
    ------
    ValueError
        A shape is wrong, a number is not a probability, or a row does not sum to 1.
    """

    preference: FloatArray
    persistence: float
    activity: FloatArray

    def __post_init__(self) -> None:
        shape = np.shape(self.preference)
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"preference: shape is {shape}, expected (slots, users, models)")
        preference = checked("preference", self.preference, "float", shape, low=0, high=1)
        total = preference.sum(axis=-1)
        wrong = np.argwhere(np.abs(total - 1) > PROBABILITY)
        if wrong.size:
            t, k = map(int, wrong[0])
            raise ValueError(f"preference[{t}, {k}]: sums to {float(total[t, k])!r}, must be 1")
        persistence = checked_number("persistence", self.persistence, low=0, high=1)
        activity = checked("activity", self.activity, "float", (shape[1],), low=0, high=1)
        object.__setattr__(self, "preference", preference)
        object.__setattr__(self, "persistence", persistence)
        object.__setattr__(self, "activity", activity)

    @property
    def slots(self) -> int:
        """Number of slots T."""
        return int(self.preference.shape[0])

    @property
    def users(self) -> int:
        """Number of users K."""
        return int(self.preference.shape[1])

    @property
    def models(self) -> int:
        """Number of models M."""
        return int(self.preference.shape[2])


def sample(demand: Demand, rng: np.random.Generator) -> IntArray:
    """Return requests (T, K) drawn from the demand model, -1 where a user is not active.

    Parameters
    ----------
    demand
        The demand model.
    rng
        Three uniform numbers are taken per slot and user, whatever the probabilities.
    """
    uniform = rng.random((demand.slots, demand.users, 3))
    active = uniform[..., 0] < demand.activity
    repeats = uniform[..., 1] < demand.persistence
    # Inverse distribution function. Division makes its last value 1 to the bit, so that no model
    # of probability 0 is ever drawn.
    cumulative = demand.preference.cumsum(axis=-1)
    cumulative /= cumulative[..., -1:]
    fresh = (uniform[..., 2, None] >= cumulative).sum(axis=-1)

    requests = np.full((demand.slots, demand.users), -1)
    last = np.full(demand.users, -1)
    for t in range(demand.slots):
        model = np.where(repeats[t] & (last >= 0), last, fresh[t])
        requests[t] = np.where(active[t], model, -1)
        last = np.where(active[t], model, last)
    return requests


def popularity(demand: Demand) -> FloatArray:
    """Return p (T, K, M), the probability before slot 0 that user k requests model m in slot t.

    Rows sum to activity[k].
    """
    return forecast(demand, np.empty((0, demand.users), dtype=np.int64))


def forecast(demand: Demand, past_requests: ArrayLike) -> FloatArray:
    """Return the exact distribution of the requests of slots t..T-1, given those of slots 0..t-1.

    With last[k, m] the probability that the last request of user k was m (its rows sum to the
    probability that there was one), a the activity and rho the persistence,

        request[t] = a (rho last + (1 - rho sum_m last) preference[t])
        last      <- (1 - a) last + request[t]

    Parameters
    ----------
    demand
        The demand model.
    past_requests
        (t, K), requests of the first t slots, -1 for none; t from 0 to T.

    Returns
    -------
    FloatArray
        (T - t, K, M), probability that user k requests model m; rows sum to activity[k].

    Raises
    ------
    ValueError
        `past_requests` has another shape, or names no model.
    """
    given = np.shape(past_requests)
    if len(given) != 2 or given[0] > demand.slots or given[1] != demand.users:
        raise ValueError(
            f"past_requests: shape is {given}, expected (t, {demand.users}) "
            f"with t from 0 to {demand.slots}"
        )
    past = checked("past_requests", past_requests, "int", given, low=-1, high=demand.models - 1)
    last_request = np.full(demand.users, -1)
    for requests in past:
        last_request = np.where(requests >= 0, requests, last_request)

    last = (last_request[:, None] == np.arange(demand.models)).astype(np.float64)
    return forecast_from(demand, last, len(past))


def forecast_from(demand: Demand, last: FloatArray, t: int) -> FloatArray:
    """Return the distribution of the requests of slots t..T-1, given that of the last request.

    Parameters
    ----------
    demand
        The demand model.
    last
        (..., K, M), probability that the last request of user k before slot t was m; a row sums to
        the probability that there was one.
    t
        First slot, from 0 to T.

    Returns
    -------
    FloatArray
        (T - t, ..., K, M), as in `forecast`.
    """
    coming = demand.preference[t:]
    distribution = np.empty((len(coming), *last.shape))
    for h in range(len(coming)):
        distribution[h], last = one_slot_on(demand, last, t + h)
    return distribution


def one_slot_on(demand: Demand, last: FloatArray, t: int) -> tuple[FloatArray, FloatArray]:
    """Return the distributions of the requests of slot t, and of the last request after it.

    Parameters
    ----------
    demand, last, t
        As in `forecast_from`.
    """
    activity = demand.activity[:, None]
    fresh = 1 - demand.persistence * last.sum(axis=-1, keepdims=True)
    request = activity * (demand.persistence * last + fresh * demand.preference[t])
    return request, (1 - activity) * last + request


def draw_demand(
    rng: np.random.Generator,
    *,
    slots: int,
    users: int,
    models: int,
    zipf: float,
    tastes: float = 0.0,
    drift: float = 0.0,
    period: int = 0,
    persistence: float = 0.0,
    activity: float | ArrayLike = 1.0,
    area: ArrayLike | None = None,
    areas: int | None = None,
) -> Demand:
    """Draw a demand model: Zipf popularity over rankings that differ by area and drift over slots.

    The users of one area rank the models by a common score, the best first, and
    preference = (1 + rank)^-zipf / sum. Scores are standard Gaussians, independent over models:

        field[t, area] = sqrt(1 - tastes) common[t] + sqrt(tastes) own[t, area]
        score[0]       = field[0]
        score[t]       = (1 - drift) score[t-1] + sqrt(1 - (1 - drift)^2) field[t]

    so that the scores of two areas in one slot have correlation 1 - tastes, and those of one area
    in slots t and t + l have correlation (1 - drift)^l. The rank correlation (Spearman's) that
    belongs to correlation c is, for many models, (6 / pi) arcsin(c / 2).

    Parameters
    ----------
    rng
        Source of the scores; more slots with the same seed extend the same path.
    slots, users, models
        T, K and M, each at least 1.
    zipf
        Exponent, at least 0: 0 makes all models alike.
    tastes
        In [0, 1]: 0, all areas rank alike; 1, their rankings are independent.
    drift
        In [0, 1]: 0, rankings stay; 1, each slot has a new one. It is part of `preference`, and
        so known beforehand.
    period
        Slots after which the rankings repeat, score[t] = score[t mod period]; 0 for never. Needs
        drift.
    persistence
        As in `Demand`.
    activity
        One number for all users, or (K,), as in `Demand`.
    area
        (K,), label >= 0 of each user's area, such as its strongest node; default: every user its
        own.
    areas
        Draw scores of so many areas, whether they have users or not, so that users who come do not
        change those of others; None for areas with users alone.

    Raises
    ------
    ValueError
        A number is out of its range, or an array has another shape.
    """
    for name, count, low in (
        ("slots", slots, 1),
        ("users", users, 1),
        ("models", models, 1),
        ("period", period, 0),
    ):
        if count < low:
            raise ValueError(f"{name}: {count} is not allowed, must be >= {low}")
    zipf = checked_number("zipf", zipf, low=0)
    tastes = checked_number("tastes", tastes, low=0, high=1)
    drift = checked_number("drift", drift, low=0, high=1)
    if period and drift == 0:
        raise ValueError(f"drift: {drift} is not allowed, must be > 0 when period is {period}")
    labels = checked("area", np.arange(users) if area is None else area, "int", (users,), low=0)
    present, area_of_user = np.unique(labels, return_inverse=True)
    if areas is not None:
        area_of_user = labels
    drawn = len(present) if areas is None else areas
    common_and_own = rng.standard_normal((slots, 1 + drawn, models))
    common, own = common_and_own[:, :1], common_and_own[:, 1:]
    field = np.sqrt(1 - tastes) * common + np.sqrt(tastes) * own
    score = field.copy()
    for t in range(1, slots):
        score[t] = (1 - drift) * score[t - 1] + np.sqrt(1 - (1 - drift) ** 2) * field[t]
    if period:
        score = score[np.arange(slots) % period]

    rank = (-score).argsort(axis=-1).argsort(axis=-1)
    weight = np.arange(1, models + 1, dtype=np.float64) ** -zipf
    preference = (weight / weight.sum())[rank][:, area_of_user]
    if np.ndim(activity) == 0:
        activity = np.full(users, activity)
    return Demand(preference, persistence, np.asarray(activity))
