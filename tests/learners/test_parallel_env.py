"""The PettingZoo environment by PettingZoo's own tests, and against the batched environment."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from learner_scenarios import scenario
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test
from pettingzoo.utils import parallel_to_aec

from finecast.learners.apart_env import ApartEnv
from finecast.learners.parallel_env import DownloadingEnv
from finecast.learners.world.environment import NodePolicy, View, roll
from finecast.solvers.extras import MissingExtra


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
        assert set(over.values()) == set(cut.values()) == {len(rewards) == 4}
    return env, actions, rewards


def test_pettingzoo_s_own_tests_pass() -> None:
    """API and determinism by seed, warnings being errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(environment(), num_cycles=20)
        parallel_seed_test(environment, num_cycles=20)
        parallel_api_test(environment(observations="dict"), num_cycles=20)


@pytest.mark.filterwarnings("ignore")
def test_pettingzoo_s_tests_of_turns_pass() -> None:
    """Agents in turn, by PettingZoo's conversion: its tests sample actions by the flat mask."""
    api_test(parallel_to_aec(environment()), num_cycles=20)
    seed_test(lambda: parallel_to_aec(environment()), num_cycles=20)


def test_masked_actions_are_legal_and_sampled() -> None:
    """The flat mask has a part for each integer: masked samples are legal, and are not cut."""
    env = environment()
    _, infos = env.reset(seed=3)
    for agent in env.agents:
        mask, space = infos[agent]["action_mask"], env.action_space(agent)
        assert mask.shape == (space.nvec.sum(),)
        parts = np.split(mask, np.cumsum(space.nvec)[:-1])
        space.seed(1)
        action = space.sample(tuple(parts))
        assert space.contains(action)
        space.seed(1)
        np.testing.assert_array_equal(space.sample(mask), action)
        assert all(part[0] == 1 for part in parts)
        assert all(part[choice] == 1 for part, choice in zip(parts, action, strict=True))
        assert 0 < mask.sum() < mask.size


def test_observations_are_one_vector_or_apart() -> None:
    """The vector holds the parts in their order; infos have the same keys and shapes always."""
    flat, apart = environment(), environment(observations="dict")
    (vectors, infos), (parts, again) = flat.reset(seed=3), apart.reset(seed=3)
    for agent, vector in vectors.items():
        assert flat.observation_space(agent).contains(vector)
        assert apart.observation_space(agent).contains(parts[agent])
        assert list(parts[agent]) == ["own", "neighbour", "cloud", "state"]
        joined = np.concatenate([part.ravel() for part in parts[agent].values()])
        np.testing.assert_array_equal(vector, joined)
        np.testing.assert_array_equal(infos[agent]["action_mask"], again[agent]["action_mask"])
        assert (infos[agent]["seed"], infos[agent]["delay_s"]) == (3, 0.0)
    idle = {agent: np.zeros(flat.action_space(agent).shape, int) for agent in flat.agents}
    _, reward, _, _, later = flat.step(idle)
    for agent, info in later.items():
        assert {key: np.shape(value) for key, value in info.items()} == {
            key: np.shape(value) for key, value in infos[agent].items()
        }
        assert info["delay_s"] == -reward[agent] > 0.0
        assert info["seed"] == 3
    with pytest.raises(ValueError, match="observations: 'box' is not allowed"):
        environment(observations="box")


def test_actions_are_whole_numbers() -> None:
    """Actions of 0.9, which a cast would cut to 0, are refused; so are truth values and texts."""
    env = environment()
    env.reset(seed=3)
    whole = {agent: np.zeros(env.action_space(agent).shape, np.int64) for agent in env.agents}
    for wrong in (whole["node_0"] + 0.9, whole["node_0"].astype(np.float32), whole["node_0"] > 0):
        with pytest.raises(
            ValueError, match=r"actions\['node_0'\]: is of .*, must be whole numbers"
        ):
            env.step({**whole, "node_0": wrong})
    env.step(whole)


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
    assert drawn["node_1"]["seed"] == redrawn["node_1"]["seed"]
    np.testing.assert_array_equal(first["node_0"], again["node_0"])
    np.testing.assert_array_equal(second["node_0"], third["node_0"])
    assert not np.array_equal(first["node_0"], second["node_0"])
    assert env.state_space.contains(env.state())


def test_seeds_are_whole_numbers() -> None:
    """Those of NumPy too; others are refused in one line."""
    env = environment()
    first, told = env.reset(seed=np.int64(9))  # type: ignore[arg-type]
    again, _ = env.reset(seed=9)
    assert told["node_0"]["seed"] == 9
    np.testing.assert_array_equal(first["node_0"], again["node_0"])
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=f"seed: {seed} is not allowed, must be from 0"):
            env.reset(seed=seed)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_play_on_alike(copied: Callable[[DownloadingEnv], DownloadingEnv]) -> None:
    """A copy in the middle of an episode gives the same slots, and the same draws after them."""
    env = environment()
    env.reset(seed=3)
    env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    both = (env, copied(env))
    while env.agents:
        chosen = {agent: env.action_space(agent).sample() for agent in env.agents}
        (seen, reward, *_), (same, paid, *_) = (one.step(chosen) for one in both)
        assert reward == paid
        np.testing.assert_array_equal(seen["node_0"], same["node_0"])
    (seen, _), (same, _) = (one.reset() for one in both)
    np.testing.assert_array_equal(seen["node_1"], same["node_1"])


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
    with pytest.raises(ValueError, match=r"node_0.*is missing, every node must act"):
        env.step({})
    shape = env.action_space("node_0").shape
    wrong = {agent: np.full(shape, 99) for agent in env.agents}
    with pytest.raises(ValueError, match=r"node_0.*not in the action space"):
        env.step(wrong)
    half = {agent: np.full(shape, 0.5) for agent in env.agents}
    with pytest.raises(ValueError, match=r"node_0.*is of float64, must be whole numbers"):
        env.step(half)


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


@pytest.mark.parametrize("information", ["full", "delayed", "local"])
def test_nodes_that_decide_apart_have_spaces_of_their_own(information) -> None:
    """PettingZoo's tests pass; an observation is own blocks and neighbours, an action J bits."""
    env = ApartEnv(scenario(), information, observations="dict")
    parallel_api_test(env, num_cycles=12)
    observed, infos = env.reset(seed=3)
    for agent in env.agents:
        assert env.observation_space(agent).contains(observed[agent])
        assert env.action_space(agent).shape == (12,)
        assert infos[agent]["action_mask"].shape == (24,)
    for _ in range(4):
        actions = {
            agent: env.action_space(agent).sample(infos[agent]["action_mask"])
            for agent in env.agents
        }
        observed, reward, over, _, infos = env.step(actions)
    assert all(over.values())
    assert len(set(reward.values())) == 1
    with pytest.raises(ValueError, match="information: 'senders' is not allowed"):
        ApartEnv(scenario(), "senders")
