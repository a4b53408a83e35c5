"""Synthetic episodes: what is copied, what is made up, what is told, and the share of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from repository import DATA

from finecast.learners.augmentation.error import held_out_error, measured_bias, true_forecasts
from finecast.learners.augmentation.predictor import fit_predictor
from finecast.learners.augmentation.synthetic import (
    SOURCES,
    perturbed,
    requests_and_reach,
    share,
    synthetic_count,
    synthetic_episodes,
    synthetic_instances,
    with_observations,
)
from finecast.learners.world.baselines import Replacement
from finecast.learners.world.environment import roll
from finecast.problem.scenario import Scenario, read_scenario

SCENARIO = Scenario.model_validate(
    {
        "slots": 12,
        "library": {"synthetic": {"models": 6, "blocks": 14}},
        "nodes": {"count": 3, "antennas": 2, "storage_share": 0.3},
        "channel": {"error": 0.05},
        "users": {"count": 6},
        "demand": {"zipf": 2.0, "drift": 1.0, "period": 3, "persistence": 0.2},
    }
)


def generator(seed=0):
    """Return a generator of its own for every use."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def real():
    """Ten draws of a small scenario whose rankings take turns."""
    return [SCENARIO.generate(seed) for seed in range(10)]


@pytest.fixture(scope="module")
def predictor(real):
    """Fitted to six of them."""
    return fit_predictor(*requests_and_reach(real[:6]), real[0].models, generator(), units=40)


def test_observations_come_back(real):
    """A synthetic instance has exactly the requests and reach that it was made with."""
    requests, reach = requests_and_reach(real[:1])
    made = with_observations(real[1], requests[0].numpy(), reach[0].numpy(), "x ")
    again = requests_and_reach([made])
    assert torch.equal(again[0], requests)
    assert torch.allclose(again[1], reach, rtol=1e-12)
    assert made.library is real[1].library
    assert made.network is real[1].network
    assert made.name == "x " + real[1].name


def test_closed_form_episodes_depend_on_requests_and_reach_alone(real):
    """Rebuilt from its own observations, an instance has the same delays under the same policy."""
    requests, reach = requests_and_reach(real[:2])
    rebuilt = [
        with_observations(one, requests[i].numpy(), reach[i].numpy())
        for i, one in enumerate(real[:2])
    ]
    delays = [
        roll(synthetic_episodes(instances, exponent=0.1), Replacement()).delay
        for instances in (real[:2], rebuilt)
    ]
    assert torch.allclose(*delays, rtol=1e-9)


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_playable_episodes(real, predictor, source):
    """The count asked for, deterministic for a seed, and the environment plays them."""
    made, again, other = (
        synthetic_instances(
            source, real[:3], 4, generator(seed), predictor=predictor, scenario=SCENARIO
        )
        for seed in (1, 1, 2)
    )
    assert len(made) == (0 if source == "none" else 4)
    assert [one.content_hash for one in made] == [one.content_hash for one in again]
    if made:
        assert [one.content_hash for one in made] != [one.content_hash for one in other]
        total = roll(synthetic_episodes(made, exponent=0.1), Replacement()).total
        assert total.shape == (4,)
        assert bool((total > 0).all())
        assert bool(total.isfinite().all())


def test_noise_by_its_statistics(real):
    """A tenth of the requests redrawn among those of the slot; reach off by the decibels set."""
    requests, reach = (table.repeat_interleave(20, dim=0) for table in requests_and_reach(real))
    drawn, amplitude = perturbed(requests, reach, generator(), redrawn=0.5, noise_db=2.0)
    for t in range(requests.shape[1]):
        assert ((drawn[:, t, :, None] == requests[:, t, None]).any(dim=2)).all()
    same = (requests[:, :, :, None] == requests[:, :, None]).double().mean()
    expected = 0.5 + 0.5 * float(same)
    assert float((drawn == requests).double().mean()) == pytest.approx(expected, abs=0.01)
    decibels = 20 * torch.log10(amplitude / reach)
    assert float(decibels.std()) == pytest.approx(2.0, rel=0.02)
    assert float(decibels.mean()) == pytest.approx(0.0, abs=0.05)
    untouched = perturbed(requests, reach, generator(), redrawn=0.0, noise_db=0.0)
    assert torch.equal(untouched[0], requests)
    assert torch.equal(untouched[1], reach)


def test_echo_state_keeps_the_real_beginning(real, predictor):
    """With three real slots the first three are the original's, the rest are not."""
    made = synthetic_instances(
        "echo-state", real[:1], 5, generator(), predictor=predictor, real_slots=(3, 3)
    )
    for one in made:
        assert np.array_equal(one.requests[:3], real[0].requests[:3])
        assert not np.array_equal(one.requests[3:], real[0].requests[3:])


def test_true_forecasts_are_those_of_the_demand_model(real):
    """One row by hand: persistence on the last request, the rest by preference."""
    chance = true_forecasts(real[:1])[0, 4]
    demand, last = real[0].demand, real[0].requests[4]
    expected = 0.8 * demand.preference[5]
    expected[np.arange(6), last] += 0.2
    assert chance.numpy() == pytest.approx(expected)


def test_held_out_error_orders_what_is_known(real, predictor):
    """Truth below the network below persistence; each by its definition."""
    error = held_out_error(predictor, real[:6], real[6:])
    assert error.truth < error.request < error.persistence
    assert error.uniform == pytest.approx(np.log(6))
    assert 0 < error.distance < 1
    assert error.reach_db > 0
    assert error.relative == 0.0
    # 0.5 nats above persistence, of the 2 nats of all models alike.
    assert replace(error, request=1.5, persistence=1.0, uniform=2.0).relative == 0.25


def test_share_by_hand():
    """Half the error allowed halves it, half the training over halves it again."""
    assert share(0.0, 0.0, highest=0.6) == pytest.approx(0.6)
    assert share(0.25, 0.5, highest=0.6, tolerance=0.5) == pytest.approx(0.15)
    assert share(0.5, 0.0, tolerance=0.5) == 0.0
    assert share(float("inf"), 0.0) == 0.0
    assert share(0.0, 1.0) == 0.0
    assert synthetic_count(30, 0.25) == 10
    assert synthetic_count(30, 0.0) == 0


@given(
    error=st.floats(0, 2),
    worse=st.floats(0, 2),
    progress=st.floats(0, 1),
    later=st.floats(0, 1),
    highest=st.floats(0, 0.99),
)
def test_share_falls_with_error_and_progress(error, worse, progress, later, highest):
    """In [0, highest], and never more for a larger error or later in the training."""
    now = share(error, progress, highest=highest)
    assert 0 <= now <= highest
    assert share(error + worse, progress, highest=highest) <= now
    assert share(error, max(progress, later), highest=highest) <= now


def test_bias_is_nothing_without_synthetic_episodes_and_grows_with_the_share(real, predictor):
    """Zero at share 0; request and reward on a line; real slots have no error."""
    biases, by_slot = measured_bias(
        predictor, real[6:], Replacement(), generator(), shares=(0.0, 0.5, 1.0), begin=4, copies=2
    )
    none, half, all_ = biases
    assert (none.request, none.reach_db, none.reward) == (0.0, 0.0, 0.0)
    assert half.request == pytest.approx(all_.request / 2)
    assert half.reward == pytest.approx(all_.reward / 2)
    assert half.reach_db == pytest.approx(all_.reach_db / np.sqrt(2))
    assert 0 < all_.request < 1
    assert by_slot[:4] == pytest.approx(np.zeros(4), abs=1e-9)
    assert np.abs(by_slot[4:]).max() > 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("noisy", "source: 'noisy' is not allowed"),
        ("oracle", "scenario: is missing"),
        ("echo-state", "predictor: is missing"),
        ("world-model", "predictor: is missing"),
    ],
)
def test_what_is_missing_is_named(real, source, message):
    """One line that says what a source needs."""
    with pytest.raises(ValueError, match=message):
        synthetic_instances(source, real, 1, generator())
    with pytest.raises(ValueError, match="instances: is empty"):
        synthetic_instances("noise", [], 1, generator())


def test_shipped_scenario_has_rankings_that_repeat():
    """`periodic` repeats its preferences every 4 slots and changes them in between."""
    path = DATA / "scenarios" / "periodic.toml"
    preference = read_scenario(path).generate(0).demand.preference
    assert np.array_equal(preference[4:], preference[:-4])
    assert np.abs(preference[1:4] - preference[:3]).max() > 0.1
