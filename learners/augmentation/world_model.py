"""A small learned world model of requests and channels, for comparison with echo state networks.

One network, a hidden layer wide, for every user k:

    (k's last request, shares of the models in the requests of all users, log reach of k)
        -> logits of k's next request, expected change of the log reach

It is fitted by Adam on all slots of the real draws at once: cross-entropy of the request plus
squared error of the change of the reach, in units of its root mean square. It has no
memory of its own. It sees requests and reach alone, as echo state networks do, but it knows models
and nodes by number. World models in place of hand-made predictors: Hafner et al. (arXiv
2301.04104); of multi-agent learners: Zhang et al. (DIMA, arXiv 2505.20922).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from finecast.learners.augmentation.predictor import LEAST_REACH, last_requests


@dataclass(frozen=True, eq=False)
class WorldModel:
    """A fitted world model.

    Attributes
    ----------
    network
        From inputs (..., 2 M + N) to (..., M + N).
    models
        M.
    activity
        Share of the slots in which a user requests something.
    centre, spread
        Mean and deviation of the logarithm of the reach.
    step
        Root mean square of its change from slot to slot.
    residual
        (R,) what changes of the training draws differ from the expected ones.
    """

    network: nn.Module
    models: int
    activity: float
    centre: float
    spread: float
    step: float
    residual: Tensor


def fit_world_model(
    requests: Tensor,
    reach: Tensor,
    models: int,
    generator: torch.Generator,
    *,
    width: int = 32,
    steps: int = 100,
    rate: float = 1e-2,
) -> WorldModel:
    """Return the world model fitted to episodes.

    Parameters
    ----------
    requests
        (E, T, K) int64 model requested, -1 for none.
    reach
        (E, T, K, N) sqrt(P_n) max(0, |g_kn| - eps_kn).
    models
        M.
    generator
        Source of the first weights.
    width
        Of the hidden layer.
    steps, rate
        Of Adam.

    Raises
    ------
    ValueError
        There is only one slot.
    """
    slots, nodes = requests.shape[1], reach.shape[3]
    if slots < 2:
        raise ValueError("slots: 1 is not allowed, must be >= 2 to predict one from another")
    log_reach = _log(reach)
    change = log_reach.diff(dim=1)
    centre, spread = float(log_reach.mean()), float(log_reach.std()) or 1.0
    step = float(change.square().mean().sqrt()) or 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        network = nn.Sequential(
            nn.Linear(2 * models + nodes, width), nn.ReLU(), nn.Linear(width, models + nodes)
        )
    inputs = _inputs(last_requests(requests), requests, (log_reach - centre) / spread, models)[
        :, :-1
    ]
    coming, made = requests[:, 1:], requests[:, 1:] >= 0
    adam = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(steps):
        logits, expected = network(inputs).split([models, nodes], dim=-1)
        loss = cross_entropy(logits[made], coming[made]) + mse_loss(expected, change / step)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    with torch.no_grad():
        residual = change - step * network(inputs)[..., models:]
    activity = float((requests >= 0).double().mean())
    return WorldModel(network, models, activity, centre, spread, step, residual.flatten())


def world_forecast(
    model: WorldModel, last: Tensor, requests: Tensor, reach: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the distribution of the next request (..., K, M) and its expected log reach.

    Parameters
    ----------
    model
        What has been learnt.
    last
        (..., K) int64 last request of every user, -1 for none.
    requests, reach
        (..., K) and (..., K, N) of the slot.
    """
    log_reach = _log(reach)
    scaled = (log_reach - model.centre) / model.spread
    with torch.no_grad():
        out = model.network(_inputs(last, requests, scaled, model.models))
    chance = torch.softmax(out[..., : model.models].double(), dim=-1)
    return chance, log_reach + model.step * out[..., model.models :]


def imagine_world(
    model: WorldModel,
    requests: Tensor,
    reach: Tensor,
    begin: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return requests and reach that are real before slot `begin` and sampled from there on.

    Parameters
    ----------
    model
        What has been learnt.
    requests, reach
        (E, T, K) and (E, T, K, N), the real episodes.
    begin
        (E,) int64, at least 1.
    generator
        Source of the samples.
    """
    requests, reach = requests.clone(), reach.double().clone()
    low, high = float(_log(reach).min()), float(_log(reach).max())
    for t in range(requests.shape[1] - 1):
        last = last_requests(requests[:, : t + 1])[:, -1]
        chance, expected = world_forecast(model, last, requests[:, t], reach[:, t])
        drawn = torch.multinomial(chance.flatten(0, 1), 1, generator=generator).reshape(last.shape)
        active = torch.rand(last.shape, generator=generator) < model.activity
        drawn = torch.where(active, drawn, -1)
        pick = torch.randint(len(model.residual), expected.shape, generator=generator)
        sampled = (expected + model.residual[pick]).clamp(low, high).exp()
        imagined = (t + 1 >= begin)[:, None]
        requests[:, t + 1] = torch.where(imagined, drawn, requests[:, t + 1])
        reach[:, t + 1] = torch.where(imagined[..., None], sampled, reach[:, t + 1])
    return requests, reach


def _inputs(last: Tensor, requests: Tensor, log_reach: Tensor, models: int) -> Tensor:
    """Return (..., K, 2 M + N) float32."""
    repeated = one_hot(last.clamp_min(0), models) * (last >= 0)[..., None]
    requested = one_hot(requests.clamp_min(0), models) * (requests >= 0)[..., None]
    shares = requested.float().mean(dim=-2, keepdim=True).expand(repeated.shape)
    return torch.cat([repeated.float(), shares, log_reach.float()], dim=-1)


def _log(reach: Tensor) -> Tensor:
    return reach.double().clamp_min(LEAST_REACH).log()
