"""Trainers of other libraries run on the PettingZoo environment, a few steps each."""

from __future__ import annotations

import numpy as np
import pytest
from learner_scenarios import scenario

from finecast.learners.parallel_env import DownloadingEnv

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainers' own


@pytest.mark.parametrize("dead", [False, True])
def test_stable_baselines_trains_through_supersuit(dead: bool) -> None:
    """PPO shares one policy between the nodes, over many episodes; its weights move."""
    import supersuit
    from stable_baselines3 import PPO

    nodes = DownloadingEnv(scenario())
    env = supersuit.pettingzoo_env_to_vec_env_v1(supersuit.black_death_v3(nodes) if dead else nodes)
    envs = supersuit.concat_vec_envs_v1(env, 2, base_class="stable_baselines3")
    model = PPO("MlpPolicy", envs, n_steps=8, batch_size=24, n_epochs=1, device="cpu")
    before = [weights.detach().clone() for weights in model.policy.parameters()]
    model.learn(100)
    assert model.num_timesteps >= 100
    after = list(model.policy.parameters())
    assert any(not (a == b).all() for a, b in zip(before, after, strict=True))
    action, _ = model.predict(envs.reset(), deterministic=True)
    assert action.shape == (2 * 3, 24)


@pytest.mark.parametrize(
    "wrapper", ["black_death_v3", "flatten_v0", "frame_stack_v1", "agent_indicator_v0"]
)
def test_supersuit_wrappers_run(wrapper: str) -> None:
    """They want one vector for an observation; an episode is played."""
    import supersuit

    env = getattr(supersuit, wrapper)(DownloadingEnv(scenario()))
    observed, _ = env.reset(seed=1)
    steps = 0
    while env.agents:
        for agent, seen in observed.items():
            assert env.observation_space(agent).contains(np.asarray(seen))
        observed, *_ = env.step({agent: env.action_space(agent).sample() for agent in env.agents})
        steps += 1
    assert steps == 4


def test_supersuit_wrappers_stand_on_each_other() -> None:
    """All of them at once, then copies of it as one environment of Gymnasium."""
    import supersuit

    env = supersuit.frame_stack_v1(supersuit.black_death_v3(DownloadingEnv(scenario())), 3)
    env = supersuit.agent_indicator_v0(env)
    envs = supersuit.concat_vec_envs_v1(
        supersuit.pettingzoo_env_to_vec_env_v1(env), 2, base_class="gymnasium"
    )
    observed, _ = envs.reset(seed=1)
    single = DownloadingEnv(scenario()).observation_space("node_0").shape[0]
    assert observed.shape == (2 * 3, 3 * single + 3)


def test_torchrl_rolls_out_with_masks() -> None:
    """Specs hold at reset and in steps, and the mask comes with every observation."""
    from torchrl.envs.libs.pettingzoo import PettingZooWrapper
    from torchrl.envs.utils import check_env_specs

    env = PettingZooWrapper(
        DownloadingEnv(scenario()), group_map={"nodes": [f"node_{n}" for n in range(3)]}
    )
    check_env_specs(env)
    played = env.rollout(4)
    nodes = played["nodes"]
    assert nodes["action"].shape == (4, 3, 24)
    assert nodes["action_mask"].shape == (4, 3, 12 * 5 + 12 * 2)
    assert not nodes["action_mask"][0].all()
    assert (played["next", "nodes", "reward"] < 0).all()
    np.testing.assert_allclose(
        played["next", "nodes", "info", "delay_s"], -played["next", "nodes", "reward"][..., 0]
    )
