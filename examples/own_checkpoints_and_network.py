"""Your own checkpoints, network, channels and requests, without a scenario file.

The program writes three fine-tuned models as .safetensors files. finecast finds what they share by
content. The network has two nodes with a fibre between them and a slow link to the cloud.

Run: python3 examples/own_checkpoints_and_network.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import finecast
from finecast.problem.channel import draw_channels
from finecast.problem.checkpoints import library_from_checkpoints
from finecast.problem.demand import Demand, sample
from finecast.problem.network import Network, dbm_to_w, thermal_noise_w

rng = np.random.default_rng(0)

# 1. The models share a frozen trunk. Two of them share a second stage. Each has a head of its own.
trunk, stage = (rng.standard_normal((256, 256), dtype=np.float32) for _ in range(2))
with tempfile.TemporaryDirectory() as folder:
    for name in ("cats", "dogs", "birds"):
        tensors = {"trunk.weight": trunk, "head.weight": rng.standard_normal((64, 256))}
        tensors["stage.weight"] = stage if name != "birds" else rng.standard_normal((256, 256))
        save_file(tensors, Path(folder) / f"{name}.safetensors")
    library = library_from_checkpoints(folder)
for j, name in enumerate(library.block_names):
    owners = [library.model_names[m] for m in library.model_blocks[:, j].nonzero()[0]]
    print(f"block {name}: {library.block_size[j]} bytes, in {', '.join(owners)}")

# 2. The network. Rates are in bit/s, powers in W, storage in bytes. Decibels are converted here.
bandwidth = 20e6
node_position = np.array([[0.0, 0.0], [250.0, 0.0]])  # m
network = Network(
    storage=np.array([600_000, 900_000]),
    power=dbm_to_w([30.0, 27.0]),
    backhaul_rate=np.array([[0.0, 1e9], [1e9, 0.0]]),
    cloud_rate=np.array([5e7, 5e7]),
    bandwidth=bandwidth,
    noise_power=thermal_noise_w(bandwidth, noise_figure_db=9.0),
    node_position=node_position,
)

# 3. The channels have shape (slots, users, nodes, antennas). Here they are drawn by 3GPP rules.
# Measured or ray-traced arrays go in their place. The error is the radius of a link's error ball.
slots, users = 2, 4
user_position = np.column_stack([np.linspace(40.0, 210.0, users), np.full(users, 30.0)])
channels = draw_channels(
    node_position,
    user_position,
    large_scale_rng=np.random.default_rng(1),
    fading_rng=np.random.default_rng(2),
    error_rng=np.random.default_rng(3),
    slots=slots,
    antennas=4,
    environment="umi",
    error=0.05,
)

# 4. The demand holds the statistics that online methods know. The requests are drawn from it.
demand = Demand(
    preference=np.broadcast_to([0.5, 0.3, 0.2], (slots, users, library.models)),
    persistence=0.3,
    activity=np.ones(users),
)
instance = finecast.Instance(
    library=library,
    network=network,
    demand=demand,
    requests=sample(demand, np.random.default_rng(4)),
    channel_estimate=channels.estimate,
    channel_error=channels.error,
    channel_true=channels.true,
    user_position=user_position,
    name="my own",
)

for method in ("exact", "lru"):
    result = finecast.solve(instance, method, time_limit=20.0)
    print(f"{method}: {result.delay:.6g} s, at most {100 * result.gap:.3f} % above the optimum")
