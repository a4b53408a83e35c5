"""The PettingZoo environment by PettingZoo's own tests, and against the batched environment."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from learner_scenarios import scenario
from pettingzoo.test import parallel_api_test, parallel_seed_test

from finecast.learners.extras import MissingExtra
from finecast.learners.parallel_env import DownloadingEnv
from finecast.learners.world.environment import NodePolicy, View, roll


def environment(**options: Any) -> DownloadingEnv:
    """Return the environment of the small scenario."""
    return DownloadingEnv(scenario(), **options)


def played(seed: int) -> tuple[DownloadingEnv, list[dict[str, Any]], list[dict[str, float]]]:
    """Return the environment after an episode of random actions, with actions and rewards."""
    env = environment()
    observed, _ = env.reset(seed=seed)
    rng = np.random.default_rng(0)
    actions, rewards = [], []
    while env.agents:
        for agent, seen in observed.items():
            assert env.observation_space(agent).contains(seen)
        chosen = {agent: rng.integers(env.action_space(agent).nvec) for agent in env.agents}
        observed, reward, over, cut, _ = env.step(chosen)
        actions.append(chosen)
        rewards.append(reward)
        assert set(over.values()) == {len(rewards) == 4}
        assert set(cut.values()) == {False}
    return env, actions, rewards


def test_pettingzoo_s_own_tests_pass() -> None:
    """API and determinism by seed, warnings being errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(environment(), num_cycles=20)
        parallel_seed_test(environment, num_cycles=20)


def test_masked_actions_are_legal_and_sampled() -> None:
    """Every masked sample is in the space, and its pulls are not projected away."""
    env = environment()
    observed, _ = env.reset(seed=3)
    blocks = env.action_space("node_0").shape[0] // 2
    for agent in env.agents:
        mask = observed[agent]["action_mask"]
        space = env.action_space(agent)
        space.seed(1)
        action = space.sample(mask)
        assert space.contains(action)
        assert all(part[0] == 1 for part in mask)
        assert all(mask[i][choice] == 1 for i, choice in enumerate(action))
        assert len(mask) == 2 * blocks


def test_rewards_are_the_delays_of_the_batched_environment() -> None:
    """The same actions as a node policy give the same delays, and so the judge's."""
    env, actions, rewards = played(5)
    assert env._episode is not None
    stacked = [torch.from_numpy(np.stack(list(chosen.values())))[None] for chosen in actions]
    blocks = env._episode.blocks

    class Told(NodePolicy):
        """Do what the actions said; keep in the order of what a copy saves."""

        def pull(self, view: View, n: int | None) -> torch.Tensor:
            return stacked[view.slot.t][..., :blocks] - 1

        def keep(self, view: View, n: int | None) -> torch.Tensor:
            worth, kind = view.slot.worth[0, 0], view.slot.kind[0]
            rows = []
            for m in range(view.slot.nodes):
                others = view.held[0] & ~(1 << m)
                rows.append(worth[kind, others] - worth[kind, others | 1 << m])
            wanted = stacked[view.slot.t][..., blocks:] == 1
            return torch.where(wanted, torch.stack(rows)[None].clamp(min=1e-30), 0.0)

    expected = roll(env._episode, Told(), in_turn=False).delay.sum(dim=2)[0]
    for t, reward in enumerate(rewards):
        assert len(set(reward.values())) == 1
        assert reward["node_0"] == pytest.approx(-float(expected[t]), rel=1e-12)


def test_a_seed_makes_the_episode_and_those_after_it() -> None:
    """The same seed, the same observations; without one, a fresh draw from the last seed."""
    env = environment()
    first, told = env.reset(seed=9)
    second, drawn = env.reset()
    again, _ = env.reset(seed=9)
    third, redrawn = env.reset()
    assert told["node_0"]["seed"] == 9
    assert drawn["node_1"] == redrawn["node_1"]
    np.testing.assert_array_equal(first["node_0"]["own"], again["node_0"]["own"])
    np.testing.assert_array_equal(second["node_0"]["own"], third["node_0"]["own"])
    assert not np.array_equal(first["node_0"]["own"], second["node_0"]["own"])
    assert env.state_space.contains(env.state())


def test_true_rates_are_an_option() -> None:
    """By beamforming; anything else is refused."""
    one = scenario(slots=1, nodes={"count": 2}, users={"count": 2})
    env = DownloadingEnv(one, rates="true")
    env.reset(seed=0)
    idle = {agent: np.zeros(env.action_space(agent).shape, dtype=int) for agent in env.agents}
    _, reward, over, _, _ = env.step(idle)
    assert reward["node_0"] < 0
    assert over == {"node_0": True, "node_1": True}
    with pytest.raises(ValueError, match="rates: 'guess' is not allowed"):
        environment(rates="guess")


def test_bad_steps_are_refused_in_one_line() -> None:
    """Before a reset, after the end, an action missing or outside its space."""
    env = environment()
    with pytest.raises(RuntimeError, match="call reset"):
        env.step({})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"node_0.*not in the action space"):
        env.step({})
    shape = env.action_space("node_0").shape
    wrong = {agent: np.full(shape, 99) for agent in env.agents}
    with pytest.raises(ValueError, match=r"node_0.*not in the action space"):
        env.step(wrong)


def test_without_the_extra_the_import_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line that names the extra."""
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    monkeypatch.delitem(sys.modules, "finecast.learners.parallel_env")
    with pytest.raises(MissingExtra, match=r"pip install 'finecast\[pettingzoo\]'") as caught:
        importlib.import_module("finecast.learners.parallel_env")
    assert caught.value.extra == "pettingzoo"
    assert "\n" not in str(caught.value)
