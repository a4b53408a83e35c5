"""The paper's regime: what action semantics and augmentation add to learners from scratch.

    python3 benchmarks/learning/paper_regime.py train -o FOLDER --budget 20
    python3 benchmarks/learning/paper_regime.py table -o FOLDER --figure docs/benchmarks/FILE.svg

All learners have the preset `published` on the scenario `paper-regime`. `train` makes the runs that
`FOLDER/rows.jsonl` does not have yet, in the order of `JOBS`, and adds a row for every held-out
evaluation. A run is cut off and made anew if it was not finished; a benchmark that was killed goes
on. The budget is the CPU seconds of a run's updates; making its first draws is noted apart.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from draws import scenario_file
from paper_regime_report import figure, tables
from torch import Tensor

from finecast.compare.runs.machine import machine
from finecast.learners.algorithms.set_values import Rows, backup
from finecast.learners.learner import Learner, play
from finecast.learners.registry import learner_kind
from finecast.learners.runs.config import RunConfig, run_config
from finecast.learners.runs.held_out import FIRST_SEED
from finecast.learners.runs.source import ScenarioSource
from finecast.learners.world.baselines import KEEP_ANYWAY, Replacement, Rolling, Static
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import NodePolicy, View, roll
from finecast.learners.world.episodes import Episodes
from finecast.problem.scenario import Scenario, read_scenario
from finecast.solvers.solve import versions

MARKS = (0.0, 0.025, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares of the budget at which the policy is measured."""

EXPECTED_STEPS = 300
"""Steps over which the synthetic share falls; about as many as 20 CPU seconds allow."""

HELD_OUT = 16
"""Held-out draws."""

DRAW_SETS = 2
"""Sets of training draws: a seed takes one of them, and its own networks and exploration."""


@dataclass(frozen=True)
class Variant:
    """A run, apart from its seed: a learner, and what it has beside the preset."""

    learner: str = "maasn-da"
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    def config(self, seed: int) -> RunConfig:
        """Return the run as `finecast train` takes it."""
        table = {
            "learner": self.learner,
            "preset": "published",
            "scenarios": ["paper-regime"],
            "seed": seed,
            "source": {"draws": 32, "refresh": EXPECTED_STEPS // 2, **self.source},
            "options": dict(self.options),
        }
        return run_config(table)


def _from(augmentation: str, **source: Any) -> Variant:
    return Variant(source={"augmentation": augmentation, **source})


VARIANTS = {
    "maasn-da": Variant(),
    "no action semantics": Variant(options={"action_semantics": False}),
    "no augmentation": _from("none"),
    "maddpg critic": Variant(options={"critic": "maddpg"}),
    "qmix": Variant("qmix"),
    "mappo": Variant("mappo"),
    "ippo": Variant("ippo"),
    "last value": _from("last-value"),
    "world model": _from("world-model"),
    "true generator": _from("oracle"),
    "credit by block": Variant(options={"credit": "block"}),
    "share 0.25": _from("echo-state", synthetic=0.25),
    "share 0.75": _from("echo-state", synthetic=0.75),
    "8 real": _from("none", draws=8),
    "8 real, share 0.5": _from("echo-state", draws=8),
    "8 real, share 0.75": _from("echo-state", draws=8, synthetic=0.75),
    "256 real": _from("none", draws=256),
    "256 real, share 0.5": _from("echo-state", draws=256),
}
"""All variants by name. Where nothing else is said: 32 real draws, echo states, share 0.5."""

PAPER = ("maasn-da", "no action semantics", "no augmentation")

PEERS = ("maddpg critic", "qmix", "mappo", "ippo")

OTHERS = tuple(VARIANTS)[7:]
"""Predictors, shares of synthetic draws, numbers of real draws, and credit by block."""

SEEDS, FEWER_SEEDS = 10, 3

JOBS = tuple(
    dict.fromkeys(
        (
            *itertools.product(range(FEWER_SEEDS), VARIANTS),
            *itertools.product(range(SEEDS), (*PAPER, *PEERS)),
        )
    )
)
"""(seed, variant) in the order in which they are made: what matters first."""


@functools.cache
def scenario() -> Scenario:
    """Return the scenario."""
    return read_scenario(scenario_file("paper-regime"))


@functools.cache
def held_out() -> Episodes:
    """Return the held-out draws, with rates in closed form."""
    return surrogate_episodes(scenario(), range(FIRST_SEED, FIRST_SEED + HELD_OUT))


class OwnSavings(NodePolicy):
    """Keep the copies that saved most: v <- 0.8 v + what the copy saved, given the others'."""

    value: Tensor

    def pull(self, view: View, n: int | None) -> None:
        """Leave it to the best chain levels."""
        return

    def keep(self, view: View, n: int | None) -> Tensor:
        """Score all blocks at all nodes, at once."""
        slot, cached = view.slot, view.cached
        rows = Rows.where(slot.real)
        cost = torch.zeros((*slot.size.shape, 1 << slot.nodes))
        paid = backup(slot, torch.zeros((len(rows.draw), cost.shape[2])), rows)
        cost[rows.draw, rows.block] = torch.where(rows.pick(slot.needed)[:, None], paid, 0.0)
        bits = 1 << torch.arange(slot.nodes)[:, None]
        others = cached[:, None] & ~bits
        without, with_it = (
            cost[:, None].expand(-1, slot.nodes, -1, -1).gather(3, sets[..., None])[..., 0]
            for sets in (others, others | bits)
        )
        value = without - with_it
        self.value = value if slot.t == 0 else 0.8 * self.value + value
        before = (cached[:, None] & bits) != 0
        return self.value + KEEP_ANYWAY + 1e-9 * before


class Mixed(NodePolicy):
    """Pulls and keeps of two policies: which of the two a learner has learned.

    Parameters
    ----------
    pulls, keeps
        Whose pulls and whose keeps they are, all at once.
    """

    in_turn, rounds = False, 1

    def __init__(self, pulls: NodePolicy, keeps: NodePolicy) -> None:
        self.pulls, self.keeps = pulls, keeps

    def begin(self, view: View) -> None:
        """Let both take note."""
        self.pulls.begin(view)
        self.keeps.begin(view)

    def pull(self, view: View, n: int | None) -> Tensor | None:
        """Pull as the one does."""
        return self.pulls.pull(view, n)

    def keep(self, view: View, n: int | None) -> Tensor:
        """Keep as the other does."""
        return self.keeps.keep(view, n)


def references(folder: Path) -> dict[str, float]:
    """Return the mean delays of rules of one line on the held-out draws, s; they are kept."""
    path = folder / "rules.json"
    if path.exists():
        return {name: float(delay) for name, delay in json.loads(path.read_text()).items()}
    draws = held_out()
    games: dict[str, tuple[NodePolicy, bool, int]] = {
        "LRU": (Replacement("recency"), False, 1),
        "own savings": (OwnSavings(), False, 1),
        "greedy-online": (Static(), False, 1),
        "rolling": (Rolling(), True, 3),
    }
    found = {
        name: float(roll(draws, policy, in_turn=in_turn, rounds=rounds).total.mean())
        for name, (policy, in_turn, rounds) in games.items()
    }
    path.write_text(json.dumps(found))
    return found


@functools.cache
def source_of(key: str, seed: int) -> tuple[ScenarioSource, float]:
    """Return the draws of a source table (JSON), and the CPU seconds of making them.

    Runs that have equal draws share them.
    """
    began = time.process_time()
    config = run_config(
        {"learner": "maasn-da", "scenarios": ["paper-regime"], "source": json.loads(key)}
    ).source
    source = ScenarioSource([scenario()], config, seed, steps=EXPECTED_STEPS).make_all()
    return source, time.process_time() - began


def environment_steps(learner: str, options: Any, steps: int) -> int:
    """Return the slots of single draws that were played in so many updates."""
    if learner == "maasn-da":
        return int(-(-steps // options.play_every) * options.batch)
    return int(steps * options.batch * scenario().slots)


def run(name: str, seed: int, budget_s: float) -> list[dict[str, Any]]:
    """Train until the budget is spent; return a row for every held-out evaluation."""
    variant = VARIANTS[name]
    config = variant.config(seed)
    key = json.dumps(config.as_dict()["source"], sort_keys=True)
    source, prepare_s = source_of(key, seed % DRAW_SETS)
    kind, options = learner_kind(variant.learner).load(), config.learner_options
    learner: Learner = kind.Learner(options, source, seed=seed, device=torch.device("cpu"))
    spent, step, rows = 0.0, 0, []
    while len(rows) < len(MARKS):
        if spent < MARKS[len(rows)] * budget_s:
            began = time.process_time()
            learner.step()
            spent += time.process_time() - began
            step += 1
            continue
        policy = learner.policy()
        total = play(held_out(), policy).total
        rows.append(
            {
                "variant": name,
                "seed": seed,
                "mark": len(rows),
                "step": step,
                "environment_steps": environment_steps(variant.learner, options, step),
                "cpu_s": spent,
                "prepare_s": prepare_s,
                "delay": float(total.mean()),
            }
        )
    # At the end: its pulls with the keeps of a static placement, and its keeps with the best pulls.
    for column, mixed in (
        ("delay_own_pulls", Mixed(policy, Static())),
        ("delay_own_keeps", Mixed(Static(), policy)),
    ):
        rows[-1][column] = float(play(held_out(), mixed).total.mean())
    return rows


def train_all(folder: Path, budget_s: float, stop_after_s: float) -> Iterator[str]:
    """Make the runs that are not there yet; yield a line for each."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["seed"], row["variant"]) for row in rows}
    began = time.perf_counter()
    for seed, name in JOBS:
        if (seed, name) in done:
            continue
        if time.perf_counter() - began > stop_after_s:
            return
        found = run(name, seed, budget_s)
        with path.open("a") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in found))
        delays = [round(row["delay"]) for row in found]
        yield f"{name} seed {seed}: {found[-1]['step']} steps, held-out delays {delays} s"


def main() -> None:
    """Do one step of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("step", choices=("train", "table"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the rows")
    parser.add_argument("--budget", type=float, default=20.0, help="CPU seconds of every run")
    parser.add_argument(
        "--stop-after", type=float, default=float("inf"), help="seconds after which no run begins"
    )
    parser.add_argument("--figure", type=Path, help="file for the curves, SVG")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.step == "train":
        for line in train_all(given.output, given.budget, given.stop_after):
            print(line, flush=True)
        return
    lines = (given.output / "rows.jsonl").read_text().splitlines()
    rows, known = [json.loads(line) for line in lines], references(given.output)
    print(tables(rows, known, {**machine(), "versions": versions()}))
    if given.figure:
        groups = {"the paper's parts": PAPER, "peers": ("maasn-da", *PEERS)}
        figure(rows, known, groups, given.figure)


if __name__ == "__main__":
    main()
