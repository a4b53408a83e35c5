"""A whole study in one program: own models and network, all kinds of methods, bound, report.

Six fine-tuned models share parts of a backbone. Three small cells deliver them on request, over
slow links. The program asks: how long must users wait, how much of that is unavoidable, and what
does each part of the system contribute? It trains a policy as well, for a few seconds only.

Run: python3 examples/whole_study.py [FOLDER]     # writes report.html and plan.png there
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import finecast
from finecast.pictures import overview, save_picture
from finecast.problem.checkpoints import library_from_checkpoints

# A scenario says what is common to all instances. Files that it names lie beside it.
SCENARIO = """
name = "street"
slots = 4
library.file = "library.json"
nodes = { count = 3, antennas = 2, inter_site_distance_m = 300.0, storage_share = 0.4 }
links = { backhaul_gbps = [0.05, 0.2], cloud_gbps = [0.02, 0.05] }
radio.bandwidth_mhz = 20.0
channel = { los = "nlos", error = 0.05 }
users.count = 6
demand = { zipf = 0.6, persistence = 0.7, tastes = 0.5, taste_areas = "node" }
"""

SUITE = """
name = "street"
version = 1
time_limit_s = 1.0
scenario.base = "street.toml"
methods = [
    { method = "lagrangian" },
    { method = "lagrangian", label = "coarse-grained", restrict = "coarse" },
    { method = "rolling" },
    { method = "lru" },
]
[[classes]]
name = "slow-links"
seeds = "0-1"
[[classes]]
name = "fast-links"
scenario.links.backhaul_gbps = [1.0, 2.0]
seeds = "0-1"
"""


def write_checkpoints(folder: Path) -> None:
    """Write six models: one trunk, a stage for animals and one for vehicles, a head for each."""
    rng = np.random.default_rng(0)
    trunk, animals, vehicles = rng.standard_normal((3, 400, 1000), dtype=np.float32)
    stage = dict.fromkeys(("cats", "dogs", "birds", "fish"), animals)
    stage |= dict.fromkeys(("cars", "ships"), vehicles)
    folder.mkdir()
    for name, shared in stage.items():
        head = rng.standard_normal((600, 1000), dtype=np.float32)
        tensors = {"trunk": trunk, "stage": shared, "head": head}
        save_file(tensors, folder / f"{name}.safetensors")


def study(work: Path) -> None:
    """Run every step and leave the files in `work`."""
    # 1. The library. Blocks are found by content, so nobody has to say what the models share.
    write_checkpoints(work / "models")
    library = library_from_checkpoints(work / "models")
    finecast.write_library(work / "library.json", library)
    saved = 1 - library.block_size.sum() / (library.model_blocks @ library.block_size).sum()
    print(f"{library.models} models are {library.blocks} blocks; sharing saves {100 * saved:.0f} %")

    # 2. The instance, and the best plan that knows all requests. Its bound holds for every method.
    (work / "street.toml").write_text(SCENARIO)
    scenario = finecast.read_scenario(work / "street.toml")
    instance = scenario.generate(seed=0)
    best = finecast.solve(instance, "exact", time_limit=10.0)
    print(best)

    # 3. What each part of the system contributes: take it away and solve again.
    for restriction in ("coarse", "no-comp", "no-migration", "unicast"):
        without = finecast.solve(instance, restrict=restriction, time_limit=1.0)
        print(f"{restriction:>14}: {100 * (without.delay / best.delay - 1):+.0f} % delay")

    # 4. What more the air gives: several messages at once, and migrations beside the broadcasts.
    #    The search starts from the plan of step 2 and is never worse.
    shared = finecast.solve(
        instance, delivery="spatial", schedule="pipelined", start=best.solution, time_limit=3.0
    )
    print(f"spatial, pipelined: {100 * (shared.delay / best.delay - 1):+.0f} % delay")

    # 5. Online methods see the past and the forecast only. A trained policy is one of them: here
    #    one trained for a few seconds, and one that is shipped and was trained on other scenarios.
    trained = finecast.train(
        work / "street.toml",
        "maasn-da",
        folder=work / "policy",
        steps=2,
        validate_every=2,
        held_out=2,
        source={"draws": 4},
    )
    for label, method, options in (
        ("rolling", "rolling", {}),
        ("lru", "lru", {}),
        ("trained now", "policy", {"checkpoint": trained.checkpoint}),
        ("shipped dcg", "policy", {"checkpoint": "dcg"}),
    ):
        online = finecast.solve(instance, method, **options)
        gap = online.delay / best.lower_bound - 1
        print(f"{label:>14}: {100 * gap:.0f} % above the bound")

    # 6. One instance proves little. A suite compares methods on many, and the page has intervals.
    (work / "suite.toml").write_text(SUITE)
    finecast.run_suite(work / "suite.toml", work / "runs")
    report = finecast.write_report(work / "runs", work / "report.html")
    print(*report.answer, sep="\n")

    # 7. The picture: who asks for what, who caches what, what is on the air when.
    save_picture(overview(instance, best.solution), work / "plan.png")
    print(f"report.html and plan.png are in {work}")


if __name__ == "__main__":  # the runs of a suite start processes, which import this file again
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        study(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            study(Path(folder))
