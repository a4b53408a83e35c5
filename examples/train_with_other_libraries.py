"""Learners of other libraries on finecast's PettingZoo environment.

Stable-Baselines3 trains PPO, one policy for all nodes, through SuperSuit. TorchRL rolls out random
actions that its masks allow. Both take a few steps only.

Run: pip install 'finecast[trainers]' && python3 examples/train_with_other_libraries.py
"""

from __future__ import annotations

import warnings

import supersuit
import torch
from stable_baselines3 import PPO
from torchrl.envs.libs.pettingzoo import PettingZooWrapper

import finecast
from finecast.learners.parallel_env import DownloadingEnv

warnings.simplefilter("ignore")  # what the libraries say of each other
torch.manual_seed(0)

# 1. The environment draws an instance of the scenario at every reset. An agent is a node.
scenario = finecast.read_scenario("tiny").with_(slots=4)
env = DownloadingEnv(scenario, seed=0)
agent = env.possible_agents[0]
print(
    f"{len(env.possible_agents)} agents: observation {env.observation_space(agent).shape}, "
    f"action of {env.action_space(agent).nvec.size} choices"
)

# 2. Stable-Baselines3 sees every node of every copy as an environment of one shared policy.
copies = supersuit.concat_vec_envs_v1(
    supersuit.pettingzoo_env_to_vec_env_v1(env), 4, base_class="stable_baselines3"
)
model = PPO("MlpPolicy", copies, n_steps=32, batch_size=64, n_epochs=2, device="cpu")
model.learn(512)
print(f"Stable-Baselines3: PPO trained for {model.num_timesteps} steps")

# 3. The trained policy plays an episode. The reward of every agent is minus the delay of the slot.
observed, _ = env.reset(seed=1)
delay = 0.0
while env.agents:
    chosen = {name: model.predict(observed[name], deterministic=True)[0] for name in env.agents}
    observed, reward, *_ = env.step(chosen)
    delay -= reward[agent]
print(f"delay of its episode: {delay:.3g} s")

# 4. TorchRL keeps the nodes as a group. The mask says which choices have an effect.
wrapped = PettingZooWrapper(env, group_map={"nodes": env.possible_agents})
played = wrapped.rollout(4)
allowed = played["nodes", "action_mask"].float().mean()
print(f"TorchRL: {played.numel()} steps, {100 * allowed:.0f} % of the choices have an effect")
