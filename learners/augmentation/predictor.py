"""Echo state networks that predict requests and channels from those of the past.

The predictor sees the requests and the reach of the past and nothing else. It does not know the
demand model with its preferences, persistence and period, and it knows no positions. It treats all
models and all users alike, so that it has few weights and serves any K, M and N.

Requests. Every user k and model m have one series,

    u[t] = (k's last request is m,  share of near users who request m,  share of all other users).

It goes through a reservoir, and a ridge readout z of the state estimates the probability that the
next request of k is m:

    p[k, m] = max(z[k, m], floor) / sum_m max(z[k, m], floor).

The least-squares readout of an indicator estimates its conditional mean. The floor makes a
distribution of the estimates; it is the value of least log-loss on a grid. Near users are those
whose power comes from the same nodes: user l has the weight sum_n s_kn s_ln, where s are the shares
of the nodes in the power.

Reach. Every user and node have one series, the logarithm of the reach and its excess over its mean
so far. It goes through a second reservoir. Its next value is that of the readout plus a residual of
the fit, drawn at random.

The predictor keeps its normal equations, so that new episodes are added at the cost of their own
sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from finecast.learners.augmentation.echo_state import (
    Reservoir,
    draw_reservoir,
    normal_equations,
    readout_features,
    reservoir_states,
    ridge_readout,
)

LEAST_REACH = 1e-3
"""Reach below which a node counts as out of reach: a rate of 1e-6 bit/s/Hz."""

FLOORS = (0.03, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Candidates for the floor, in units of 1 / M."""

_SERIES = 4096
"""Number of series that go through the reservoir at once. It bounds the memory."""

_INPUT_SCALE = (1.0, 3.0, 3.0)
"""Factors of the three inputs of u. Shares get more, since they are smaller than an indicator."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """Two fitted echo state networks, one for requests and one for reach.

    Attributes
    ----------
    models
        M.
    request_reservoir, reach_reservoir
        Reservoirs of 3 and 2 inputs.
    request_sums, reach_sums
        (F + 1, F + 1) normal equations of all episodes so far.
    request_readout, reach_readout
        (F, 1) readouts.
    floor
        Least estimate of a probability before the division by the sum.
    activity
        Share of the slots in which a user requests something.
    centre, spread
        Mean and deviation of the logarithm of the reach. The network sees
        (log reach - centre) / spread.
    residual
        (R,) residuals of the reach readout, in units of the spread.
    """

    models: int
    request_reservoir: Reservoir
    reach_reservoir: Reservoir
    request_sums: Tensor
    reach_sums: Tensor
    request_readout: Tensor
    reach_readout: Tensor
    floor: float
    activity: float
    centre: float
    spread: float
    residual: Tensor


def fit_predictor(
    requests: Tensor,
    reach: Tensor,
    models: int,
    generator: torch.Generator,
    *,
    past: Predictor | None = None,
    forgetting: float = 1.0,
    units: int = 80,
    ridge: float = 1.0,
    wash_out: int = 1,
) -> Predictor:
    """Return the predictor fitted to episodes, added to what it has seen before.

    Parameters
    ----------
    requests
        (E, T, K) int64 model requested, -1 for none.
    reach
        (E, T, K, N) sqrt(P_n) max(0, |g_kn| - eps_kn).
    models
        M.
    generator
        Source of the reservoirs where there is no past predictor.
    past
        Predictor of earlier episodes, whose reservoirs are kept.
    forgetting
        Weight in [0, 1] of the sums of the past predictor.
    units
        H of the request reservoir. That of the reach has about half as many.
    ridge
        Penalty of both readouts.
    wash_out
        Slots at the beginning of an episode that the fit leaves out.

    Raises
    ------
    ValueError
        The shapes disagree, there are too few slots, or no user ever requests anything.
    """
    _check(requests, reach, models, wash_out)
    log_reach = _log(reach)
    # Reservoirs and scale: those of the past, so that the sums can be added, or new ones.
    if past is None:
        request_reservoir = draw_reservoir(
            generator, units=units, inputs=3, spectral_radius=0.95, input_scaling=0.3
        )
        reach_reservoir = draw_reservoir(
            generator, units=units // 2 + 1, inputs=2, input_scaling=0.5, leak=0.5
        )
        centre, spread = float(log_reach.mean()), float(log_reach.std()) or 1.0
    else:
        request_reservoir, reach_reservoir = past.request_reservoir, past.reach_reservoir
        centre, spread = past.centre, past.spread

    # Requests: the target of a series in slot t is whether k requests m in slot t + 1.
    request_sums = torch.zeros((), dtype=torch.float64)
    for part in _parts(len(requests), requests.shape[2] * models):
        inputs = request_inputs(requests[part], reach[part], models)
        features = readout_features(reservoir_states(request_reservoir, inputs), inputs)
        requested = one_hot(requests[part].clamp_min(0), models).double()
        active = (requests[part] >= 0)[..., None].expand_as(requested).double()
        request_sums = request_sums + normal_equations(
            features[:, :-1],
            _series(requested)[:, 1:, None],
            wash_out=wash_out,
            weight=_series(active)[:, 1:],
        )
    # Reach: the target is the scaled logarithm itself, one slot later.
    inputs = _reach_inputs((log_reach - centre) / spread)
    features = readout_features(reservoir_states(reach_reservoir, inputs), inputs)[:, :-1]
    coming = inputs[:, 1:, :1]
    reach_sums = normal_equations(features, coming, wash_out=wash_out)
    if past is not None:
        request_sums = request_sums + forgetting * past.request_sums
        reach_sums = reach_sums + forgetting * past.reach_sums
    reach_readout = ridge_readout(reach_sums, 1, ridge)

    predictor = Predictor(
        models=models,
        request_reservoir=request_reservoir,
        reach_reservoir=reach_reservoir,
        request_sums=request_sums,
        reach_sums=reach_sums,
        request_readout=ridge_readout(request_sums, 1, ridge),
        reach_readout=reach_readout,
        floor=FLOORS[0] / models,
        activity=float((requests >= 0).double().mean()),
        centre=centre,
        spread=spread,
        residual=(coming - features @ reach_readout)[:, wash_out:].flatten(),
    )
    # The floor that suits these requests best.
    estimate = _estimates(predictor, requests, reach)[:, :-1]
    loss = [log_loss(_distribution(estimate, f / models), requests[:, 1:]) for f in FLOORS]
    return replace(predictor, floor=FLOORS[loss.index(min(loss))] / models)


def next_requests(predictor: Predictor, requests: Tensor, reach: Tensor) -> Tensor:
    """Return (E, T, K, M), the distribution of the request of slot t + 1 given slots 0..t.

    Rows sum to 1: it is conditional on a request being made.

    Parameters
    ----------
    predictor
        What has been learnt.
    requests, reach
        As in `fit_predictor`.
    """
    return _distribution(_estimates(predictor, requests, reach), predictor.floor)


def next_log_reach(predictor: Predictor, reach: Tensor) -> Tensor:
    """Return (E, T, K, N), the expected logarithm of the reach in slot t + 1 given slots 0..t.

    Parameters
    ----------
    predictor
        What has been learnt.
    reach
        As in `fit_predictor`.
    """
    inputs = _reach_inputs((_log(reach) - predictor.centre) / predictor.spread)
    features = readout_features(reservoir_states(predictor.reach_reservoir, inputs), inputs)
    expected = _unseries(features @ predictor.reach_readout, reach.shape)
    return predictor.centre + predictor.spread * expected


def imagine(
    predictor: Predictor,
    requests: Tensor,
    reach: Tensor,
    begin: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return requests and reach that are real before slot `begin` and sampled from there on.

    Samples are fed back to the network: an imagined slot follows from real and imagined slots. So
    errors grow with the number of imagined slots.

    Parameters
    ----------
    predictor
        What has been learnt.
    requests, reach
        (E, T, K) and (E, T, K, N), the real episodes.
    begin
        (E,) int64, at least 1, since an imagined slot needs a real one before it.
    generator
        Source of the samples.

    Raises
    ------
    ValueError
        `begin` is less than 1 somewhere.
    """
    if int(begin.min()) < 1:
        raise ValueError(f"begin: {int(begin.min())} is not allowed, must be >= 1")
    draws, slots, users = requests.shape
    nodes, models = reach.shape[3], predictor.models
    requests, log_reach = requests.clone(), _log(reach)
    low, high = log_reach.amin(), log_reach.amax()
    last = torch.full_like(requests[:, 0], -1)
    request_state: Tensor | None = None
    reach_state: Tensor | None = None
    for t in range(slots - 1):
        # Requests of slot t + 1: by the predicted distribution, of active users.
        now, reach_now = requests[:, t : t + 1], log_reach[:, t : t + 1].exp()
        last = torch.where(now[:, 0] >= 0, now[:, 0], last)
        inputs = _inputs(last[:, None], now, reach_now, models)
        states = reservoir_states(predictor.request_reservoir, inputs, request_state)
        request_state = states[:, -1]
        estimate = readout_features(states, inputs) @ predictor.request_readout
        chance = _distribution(_unseries(estimate, (draws, 1, users, models)), predictor.floor)
        drawn = torch.multinomial(chance.reshape(-1, models), 1, generator=generator)
        active = torch.rand(draws, users, generator=generator) < predictor.activity
        drawn = torch.where(active, drawn.reshape(draws, users), -1)

        # Reach of slot t + 1: the prediction and a residual, within the range of real values.
        so_far = (log_reach[:, : t + 1] - predictor.centre) / predictor.spread
        inputs = _reach_inputs(so_far)[:, -1:]
        states = reservoir_states(predictor.reach_reservoir, inputs, reach_state)
        reach_state = states[:, -1]
        expected = (readout_features(states, inputs) @ predictor.reach_readout)[:, :, 0]
        pick = torch.randint(len(predictor.residual), expected.shape, generator=generator)
        sampled = _unseries(
            (expected + predictor.residual[pick])[..., None], (draws, 1, users, nodes)
        )
        sampled = (predictor.centre + predictor.spread * sampled[:, 0]).clamp(low, high)

        # Slots before `begin` stay real.
        imagined = t + 1 >= begin
        requests[:, t + 1] = torch.where(imagined[:, None], drawn, requests[:, t + 1])
        log_reach[:, t + 1] = torch.where(imagined[:, None, None], sampled, log_reach[:, t + 1])
    real = (torch.arange(slots) < begin[:, None])[..., None, None]
    return requests, torch.where(real, reach.double(), log_reach.exp())


def request_inputs(requests: Tensor, reach: Tensor, models: int) -> Tensor:
    """Return u, (E K M, T, 3), the series of every user and model.

    Parameters
    ----------
    requests, reach, models
        As in `fit_predictor`.
    """
    return _inputs(last_requests(requests), requests, reach, models)


def last_requests(requests: Tensor) -> Tensor:
    """Return (E, T, K) int64, the last request of each user in slots 0..t, -1 for none."""
    last = requests.clone()
    for t in range(1, requests.shape[1]):
        last[:, t] = torch.where(requests[:, t] >= 0, requests[:, t], last[:, t - 1])
    return last


def repeat_requests(requests: Tensor, models: int, persistence: float) -> Tensor:
    """Return (E, T, K, M), the distribution of the next request by persistence alone.

    Parameters
    ----------
    requests
        (E, T, K).
    models
        M.
    persistence
        Probability of the last request. All other models are alike.
    """
    last = last_requests(requests)
    of_each_other = (1 - persistence) / max(models - 1, 1)
    chance = torch.full((*requests.shape, models), of_each_other, dtype=torch.float64)
    chance = chance.scatter(-1, last.clamp_min(0)[..., None], persistence)
    return torch.where((last >= 0)[..., None], chance, 1 / models)


def persistence_of(requests: Tensor) -> float:
    """Return the share of requests that repeat the user's last one.

    A repeated and another request are added to the counts, so that the share is never 0 or 1.
    """
    last, coming = last_requests(requests)[:, :-1], requests[:, 1:]
    both = (last >= 0) & (coming >= 0)
    return (float((both & (last == coming)).sum()) + 1) / (float(both.sum()) + 2)


def log_loss(chance: Tensor, requests: Tensor) -> float:
    """Return the mean of -log p over the requests, nats.

    Parameters
    ----------
    chance
        (..., M) distribution of each request.
    requests
        (...) int64 model requested, -1 for none.

    Raises
    ------
    ValueError
        There is no request.
    """
    made = requests >= 0
    if not made.any():
        raise ValueError("requests: none is made, must be at least one")
    return float(-chance.gather(-1, requests.clamp_min(0)[..., None])[made].log().mean())


def _inputs(last: Tensor, requests: Tensor, reach: Tensor, models: int) -> Tensor:
    """Return u, (E K M, T, 3), from the last requests (E, T, K) and those of the slots."""
    users = requests.shape[2]
    repeated = one_hot(last.clamp_min(0), models).double() * (last >= 0)[..., None]
    requested = one_hot(requests.clamp_min(0), models).double() * (requests >= 0)[..., None]
    # Users are near whose power comes from the same nodes; nobody is near to itself.
    power = reach.double().square()
    share = power / power.sum(dim=-1, keepdim=True).clamp_min(LEAST_REACH**2)
    alike = share @ share.transpose(-1, -2) * (1 - torch.eye(users, dtype=torch.float64))
    by_near = alike / alike.sum(dim=-1, keepdim=True).clamp_min(1e-12) @ requested
    by_others = (requested.sum(dim=2, keepdim=True) - requested) / max(users - 1, 1)
    scale = torch.tensor(_INPUT_SCALE, dtype=torch.float64)
    return _series(torch.stack([repeated, by_near, by_others], dim=-1) * scale)


def _reach_inputs(value: Tensor) -> Tensor:
    """Return (E K N, T, 2), each value (E, T, K, N) and its excess over its mean so far."""
    count = torch.arange(1, value.shape[1] + 1, dtype=torch.float64)[:, None, None]
    return _series(torch.stack([value, value - value.cumsum(dim=1) / count], dim=-1))


def _estimates(predictor: Predictor, requests: Tensor, reach: Tensor) -> Tensor:
    """Return (E, T, K, M), z of the readout, which is no distribution yet."""
    draws, slots, users = requests.shape
    parts = []
    for part in _parts(draws, users * predictor.models):
        inputs = request_inputs(requests[part], reach[part], predictor.models)
        states = reservoir_states(predictor.request_reservoir, inputs)
        estimate = readout_features(states, inputs) @ predictor.request_readout
        parts.append(_unseries(estimate, (-1, slots, users, predictor.models)))
    return torch.cat(parts)


def _distribution(estimate: Tensor, floor: float) -> Tensor:
    """Return p of the estimates z (..., M): at least the floor, and divided by the sum."""
    positive = estimate.clamp_min(floor)
    return positive / positive.sum(dim=-1, keepdim=True)


def _series(table: Tensor) -> Tensor:
    """Return (E * A * B, T, ...) from (E, T, A, B, ...)."""
    return table.movedim(1, 3).flatten(0, 2)


def _unseries(series: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return (E, T, A, B) from (E * A * B, T, 1)."""
    _, slots, rows, columns = shape
    return series.reshape(-1, rows, columns, slots).movedim(3, 1)


def _log(reach: Tensor) -> Tensor:
    """Return the natural logarithm of the reach, at least that of `LEAST_REACH`."""
    return reach.double().clamp_min(LEAST_REACH).log()


def _parts(draws: int, series: int) -> list[slice]:
    """Return slices of the draws, each of at most `_SERIES` series or one draw."""
    step = max(_SERIES // series, 1)
    return [slice(i, i + step) for i in range(0, draws, step)]


def _check(requests: Tensor, reach: Tensor, models: int, wash_out: int) -> None:
    if requests.ndim != 3 or reach.ndim != 4 or reach.shape[:3] != requests.shape:
        raise ValueError(
            f"reach: shape is {tuple(reach.shape)}, expected (draws, slots, users, nodes) of "
            f"requests of shape {tuple(requests.shape)}"
        )
    if int(requests.max()) >= models:
        raise ValueError(f"requests: {int(requests.max())} is not allowed, must be < {models}")
    if not 0 <= wash_out < requests.shape[1] - 1:
        raise ValueError(
            f"wash_out: {wash_out} is not allowed, must be >= 0 and < {requests.shape[1] - 1}"
        )
