"""Areas of a scenario's draws as draws to train on."""

from __future__ import annotations

import numpy as np
import pytest
from learner_scenarios import scenario

from finecast.learners.learner import play
from finecast.learners.parallel_env import DownloadingEnv
from finecast.learners.policy import load_policy
from finecast.learners.runs.config import run_config
from finecast.learners.runs.training import train
from finecast.learners.world.area_draws import AreaDraws, trained_on
from finecast.learners.world.draws import surrogate_episodes
from finecast.problem.scenario import Scenario, read_scenario
from finecast.solvers.solve import solve

FEW = {
    "nodes.count": 7,
    "nodes.areas": 3,
    "users.count": 20,
    "slots": 3,
    "library": {"synthetic": {"models": 6, "blocks": 12, "families": 2, "total_gb": 1.0}},
}


def city() -> Scenario:
    """Return seven nodes in areas of at most three."""
    return read_scenario("city-19").with_(FEW)


def test_all_draws_have_one_size_and_come_from_the_city() -> None:
    """N and K are equal, a seed gives one instance, and its channels are those of the city."""
    draws = trained_on(city())
    assert isinstance(draws, AreaDraws)
    for seed in range(6):
        area, whole = draws.generate(seed), city().generate(seed)
        assert (area.nodes, area.users, area.area_count) == (draws.nodes, draws.users, 1)
        again = draws.generate(seed)
        assert (area.channel_estimate == again.channel_estimate).all()
        assert (area.requests == again.requests).all()
        # Every node is one of the city's, with its storage, and all of an area are there.
        channel = whole.channel_estimate[0]  # (K, N, antennas)
        found = [
            (k, n)
            for row in area.channel_estimate[0]
            for k, n in np.argwhere((channel == row[0]).all(axis=2))
        ]
        if not found:  # from another draw: this one has no area of that size
            continue
        nodes = {int(n) for _, n in found}
        assert len({int(whole.areas[n]) for n in nodes}) == 1
        users = [int(k) for k, _ in found]
        assert len(set(users)) == area.users
        for mine, k in zip(area.requests.T, users, strict=True):
            assert ((mine == whole.requests[:, k]) | (mine == -1)).all()


def test_one_area_is_drawn_as_it_is() -> None:
    """A scenario of one area stays itself."""
    one = scenario()
    assert trained_on(one) is one


def test_what_no_draw_has_is_refused() -> None:
    """One line that names the size."""
    with pytest.raises(ValueError, match=r"^areas: none of 100 draws has one of 7 nodes and 3 us"):
        AreaDraws(city(), 7, 3).generate(0)


def test_training_on_areas_makes_a_policy_for_the_city(tmp_path) -> None:
    """A short training on areas; its checkpoint plays all areas of the whole city."""
    lines = [
        'name = "small-city"',
        "slots = 3",
        "[nodes]\ncount = 7\nareas = 3\nantennas = 4\nstorage_share = 0.3",
        "inter_site_distance_m = 250.0",
        "[users]\ncount = 20",
        "[channel]\nerror = 0.05",
        "[library.synthetic]\nmodels = 6\nblocks = 12\nfamilies = 2\ntotal_gb = 1.0",
    ]
    file = tmp_path / "city.toml"
    file.write_text("\n".join(lines))
    for learner, information in (("maasn-da", "local"), ("dcg", "full")):
        small = {"width": 8, "embedding": 4}
        table = {
            "learner": learner,
            "scenarios": [str(file)],
            "information": information,
            "steps": 2,
            "held_out": 1,
            "source": {"draws": 4, "price_steps": 4},
            "options": {**small, "batch": 2, "replay": 6} if learner == "maasn-da" else small,
        }
        trained = train(run_config(table), tmp_path / learner)
        policy, _ = load_policy(trained.checkpoint)
        if information == "full":
            episodes = surrogate_episodes(trained_on(read_scenario(file)), [5], exponent=0.5)
            assert play(episodes, policy).total.isfinite().all()
        result = solve(read_scenario(file).generate(9), "policy", checkpoint=trained.checkpoint)
        assert result.evaluation.feasible


def test_environments_play_an_area() -> None:
    """PettingZoo's environment has the agents of one area."""
    env = DownloadingEnv(city(), seed=1)
    draws = trained_on(city())
    assert isinstance(draws, AreaDraws)
    observations, _ = env.reset(seed=1)
    assert list(observations) == [f"node_{n}" for n in range(draws.nodes)]
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    _, rewards, *_ = env.step(actions)
    assert all(np.isfinite(reward) for reward in rewards.values())
