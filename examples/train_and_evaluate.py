"""Train a learner, then compare its policy with classical online methods on fresh draws.

A checkpoint is an ordinary online method, `policy`. The judge and the bound are the same for all
methods. A few seconds of training show how it works, and not how good a learner is.
docs/learning.md says what learners see.

Run: python3 examples/train_and_evaluate.py [LEARNER] [STEPS]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import finecast

SCENARIO = """
name = "small"
slots = 6
library.synthetic = { models = 6, blocks = 16, families = 2 }
nodes = { count = 2, antennas = 2, inter_site_distance_m = 300.0, storage_share = 0.3 }
links = { backhaul_gbps = [0.3, 1.0], cloud_gbps = [0.1, 0.3] }
channel = { los = "nlos", error = 0.05 }
users.count = 4
demand = { zipf = 0.3, persistence = 0.9, tastes = 0.5, taste_areas = "node", drift = 0.3 }
"""

learner = sys.argv[1] if len(sys.argv) > 1 else "maasn-da"
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 40

with tempfile.TemporaryDirectory() as work:
    path, checkpoint = Path(work) / "small.toml", Path(work) / "run"
    path.write_text(SCENARIO)
    trained = finecast.train(
        path,
        learner,
        folder=checkpoint,
        steps=steps,
        validate_every=steps,
        held_out=4,
        source={"draws": 16},
    )
    print(f"{learner}: {trained.steps} steps in {trained.cpu_s:.1f} s of CPU")

    # Training and held-out draws have seeds below 2,000,000, so these draws are fresh.
    instances = [finecast.read_scenario(path).generate(2_000_000 + seed) for seed in range(4)]
    for method, options in (
        ("policy", {"checkpoint": trained.checkpoint}),
        ("rolling", {}),
        ("lru", {}),
    ):
        results = [finecast.solve(instance, method, **options) for instance in instances]
        assert all(result.evaluation.feasible for result in results)
        gap = np.mean([result.delay / result.lower_bound - 1.0 for result in results])
        print(f"{method:>8}: {100 * gap:.2f} % above the bound on average")
