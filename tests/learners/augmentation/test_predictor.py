"""The predictor of requests and reach: what it learns where there is something to learn."""

import math

import numpy as np
import pytest
import torch

from finecast.learners.augmentation.predictor import (
    fit_predictor,
    imagine,
    last_requests,
    log_loss,
    next_log_reach,
    next_requests,
    persistence_of,
    repeat_requests,
    request_inputs,
)
from finecast.problem.demand import draw_demand, sample

MODELS, USERS, NODES = 8, 6, 3


def generator(seed=0):
    """Return a generator of its own for every use."""
    return torch.Generator().manual_seed(seed)


def requests_of(seeds, *, slots=20, activity=1.0, **demand):
    """Return (E, T, K) requests of demand models drawn with the seeds."""
    rows = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        model = draw_demand(
            rng,
            slots=slots,
            users=USERS,
            models=MODELS,
            activity=activity,
            area=np.arange(USERS) % NODES,
            **demand,
        )
        rows.append(sample(model, rng))
    return torch.from_numpy(np.stack(rows))


def reach_like(requests, seed=0, correlation=0.8):
    """Return (E, T, K, N) reach: each user near one node, log-normal fading of set correlation."""
    draws, slots, users = requests.shape
    rng = np.random.default_rng(seed)
    home = np.arange(users)[:, None] % NODES == np.arange(NODES)
    value = np.empty((draws, slots, users, NODES))
    value[:, 0] = rng.standard_normal((draws, users, NODES))
    for t in range(1, slots):
        noise = rng.standard_normal((draws, users, NODES))
        value[:, t] = correlation * value[:, t - 1] + math.sqrt(1 - correlation**2) * noise
    return torch.from_numpy(np.exp(np.where(home, 4.0, 1.0) + 0.3 * value))


PERIODIC = {"zipf": 2.0, "drift": 1.0, "period": 3, "tastes": 0.0}


def test_cycles_are_learnt():
    """Rankings that take turns: log-loss on fresh draws far below persistence and near the truth.

    Persistence knows nothing here (a request says nothing of the next one). A predictor that sees
    the ranking in force three slots ago, through six noisy requests, must beat it by a wide margin.
    """
    train, fresh = requests_of(range(12), **PERIODIC), requests_of(range(100, 112), **PERIODIC)
    predictor = fit_predictor(train, reach_like(train), MODELS, generator())
    chance = next_requests(predictor, fresh, reach_like(fresh, 1))[:, :-1]
    repeat = repeat_requests(fresh, MODELS, persistence_of(train))[:, :-1]
    coming = fresh[:, 1:]
    assert log_loss(chance, coming) < log_loss(repeat, coming) - 0.4
    # After two cycles, when there is something to go by.
    assert log_loss(chance[:, 6:], coming[:, 6:]) < log_loss(chance[:, :3], coming[:, :3]) - 0.3


def test_persistence_is_learnt():
    """Where the last request is all there is to know, the network knows it: within 0.05 nats."""
    demand = {"zipf": 0.0, "persistence": 0.8}
    train, fresh = requests_of(range(16), **demand), requests_of(range(100, 116), **demand)
    predictor = fit_predictor(train, reach_like(train), MODELS, generator())
    chance = next_requests(predictor, fresh, reach_like(fresh, 1))[:, :-1]
    repeat = repeat_requests(fresh, MODELS, persistence_of(train))[:, :-1]
    loss = log_loss(chance, fresh[:, 1:])
    assert abs(loss - log_loss(repeat, fresh[:, 1:])) < 0.05


def test_distributions_are_distributions_and_causal():
    """Rows sum to 1, none is 0, and what comes later changes nothing earlier."""
    requests = requests_of(range(3), activity=0.7, **PERIODIC)
    reach = reach_like(requests)
    predictor = fit_predictor(requests, reach, MODELS, generator(), units=20)
    chance = next_requests(predictor, requests, reach)
    assert torch.allclose(chance.sum(dim=-1), torch.ones((), dtype=torch.float64), atol=1e-12)
    assert float(chance.min()) > 0
    later = requests.clone()
    later[:, 10:] = (later[:, 10:].clamp_min(0) + 1) % MODELS
    changed = next_requests(predictor, later, reach)
    assert torch.equal(changed[:, :10], chance[:, :10])
    assert not torch.equal(changed[:, 10:], chance[:, 10:])


def test_relabelled_models_and_users_relabel_the_answer():
    """The predictor treats all models and all users alike."""
    requests = requests_of(range(3), **PERIODIC)
    reach = reach_like(requests)
    predictor = fit_predictor(requests, reach, MODELS, generator(), units=20)
    chance = next_requests(predictor, requests, reach)
    label = torch.randperm(MODELS, generator=generator(5))
    renamed = next_requests(predictor, label[requests], reach)
    assert torch.allclose(renamed[..., label], chance, atol=1e-12)
    order = torch.randperm(USERS, generator=generator(6))
    moved = next_requests(predictor, requests[:, :, order], reach[:, :, order])
    assert torch.allclose(moved, chance[:, :, order], atol=1e-12)


def test_episodes_in_two_fits_equal_one_fit():
    """Normal equations add up: past episodes are not looked at again."""
    requests = requests_of(range(6), **PERIODIC)
    reach = reach_like(requests)
    first = fit_predictor(requests[:2], reach[:2], MODELS, generator(), units=20)
    both = fit_predictor(requests[2:], reach[2:], MODELS, generator(), past=first)
    again = fit_predictor(requests[:2], reach[:2], MODELS, generator(), past=both, forgetting=0.0)
    assert torch.allclose(again.request_readout, first.request_readout, atol=1e-9)
    whole = fit_predictor(requests, reach, MODELS, generator(), units=20)
    assert torch.allclose(both.request_readout, whole.request_readout, rtol=1e-8, atol=1e-10)


def test_reach_is_predicted_better_than_unchanged():
    """Fading of correlation 0.5: no change errs by sqrt(2 (1 - c)) = 1, the best by 0.87."""
    requests = requests_of(range(8), zipf=0.0)
    reach = reach_like(requests, 2, correlation=0.5)
    fresh = reach_like(requests, 3, correlation=0.5)
    predictor = fit_predictor(requests, reach, MODELS, generator(), units=20)
    error = next_log_reach(predictor, fresh)[:, :-1] - fresh[:, 1:].log()
    unchanged = fresh.log().diff(dim=1)
    ratio = float(error.square().mean().sqrt() / unchanged.square().mean().sqrt())
    assert 0.85 < ratio < 0.95


def test_imagined_episodes_branch_off_and_look_alike():
    """Real before `begin`, sampled after it, with the statistics of what was learnt from."""
    demand = {"zipf": 0.0, "persistence": 0.8, "activity": 0.9}
    requests = requests_of(range(24), **demand)
    reach = reach_like(requests)
    predictor = fit_predictor(requests, reach, MODELS, generator())
    begin = torch.arange(24) % 5 + 1
    drawn, amplitude = imagine(predictor, requests, reach, begin, generator(1))
    for e, t in enumerate(begin.tolist()):
        assert torch.equal(drawn[e, :t], requests[e, :t])
        assert torch.equal(amplitude[e, :t], reach[e, :t])
        assert float((amplitude[e, t] / reach[e, t]).log().abs().min()) > 1e-9
    assert int(drawn.min()) >= -1
    assert int(drawn.max()) < MODELS
    assert persistence_of(drawn[:, 6:]) == pytest.approx(persistence_of(requests), abs=0.04)
    assert float((drawn[:, 6:] < 0).double().mean()) == pytest.approx(0.1, abs=0.03)
    for table, near in ((lambda r: r[:, 6:].log().std(), 0.1), (_step_deviation, 0.05)):
        assert float(table(amplitude)) == pytest.approx(float(table(reach)), rel=near)
    same, _ = imagine(predictor, requests, reach, begin, generator(1))
    other, _ = imagine(predictor, requests, reach, begin, generator(2))
    assert torch.equal(same, drawn)
    assert not torch.equal(other, drawn)


def _step_deviation(reach):
    return reach[:, 6:].log().diff(dim=1).std()


def test_imagined_cycles_go_on():
    """What was three slots ago is requested again more than what was two slots ago."""
    requests = requests_of(range(12), **PERIODIC)
    reach = reach_like(requests)
    predictor = fit_predictor(requests, reach, MODELS, generator())
    drawn, _ = imagine(predictor, requests, reach, torch.full((12,), 6), generator(1))
    agree = {
        lag: float((drawn[:, 9:, :, None] == drawn[:, 9 - lag : -lag, None]).double().mean())
        for lag in (2, 3)
    }
    assert agree[3] > agree[2] + 0.1


def test_inputs_by_hand():
    """Three users, two of them at one node: own last request, neighbours, others."""
    requests = torch.tensor([[[0, 1, 1], [-1, 0, 1]]])
    reach = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).expand(1, 2, 3, 2)
    inputs = request_inputs(requests, reach, 2).reshape(3, 2, 2, 3)  # user, model, slot, input
    assert inputs[0, 0].tolist() == [[1.0, 0.0, 0.0], [1.0, 3.0, 1.5]]
    assert inputs[0, 1].tolist() == [[0.0, 3.0, 3.0], [0.0, 0.0, 1.5]]
    assert inputs[2, 1, 0].tolist() == [1.0, 0.0, 1.5]  # nobody is near user 2
    assert last_requests(requests).tolist() == [[[0, 1, 1], [0, 0, 1]]]


def test_log_loss_by_hand():
    """Two requests made, with 1/2 and 1/4: mean of log 2 and log 4."""
    chance = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.5, 0.5]], dtype=torch.float64)
    assert log_loss(chance, torch.tensor([0, 1, -1])) == pytest.approx(1.5 * math.log(2))
    with pytest.raises(ValueError, match="none is made"):
        log_loss(chance, torch.tensor([-1, -1, -1]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"models": 3}, "must be < 3"),
        ({"wash_out": 19}, "wash_out: 19"),
        ({"reach": torch.ones(1, 20, USERS + 1, 2)}, "reach: shape"),
    ],
)
def test_bad_input_is_named(wrong, message):
    """One line that says what is wrong."""
    requests = torch.arange(20 * USERS).reshape(1, 20, USERS) % MODELS
    given = {"reach": reach_like(requests), "models": MODELS, **wrong}
    with pytest.raises(ValueError, match=message):
        fit_predictor(requests, generator=generator(), **given)


def test_imagining_needs_a_real_slot():
    """Nothing can be said of slot 0."""
    requests = requests_of(range(2), **PERIODIC)
    predictor = fit_predictor(requests, reach_like(requests), MODELS, generator(), units=10)
    with pytest.raises(ValueError, match="begin: 0"):
        imagine(predictor, requests, reach_like(requests), torch.tensor([1, 0]), generator())
