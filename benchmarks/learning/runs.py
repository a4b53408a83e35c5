"""Training runs of the learners' benchmark: equal CPU budgets, one process, one thread.

The budget is the CPU time of the learner's updates, with labels, the predictor and all synthetic
episodes, the first ones included. Making the real draws costs every learner the same and is noted
apart. The policy is kept at `MARKS`
of the budget. The best of them on held-out draws, with rates in closed form, is evaluated later.
This choice is not part of the budget and uses no evaluation draw.

A run equals that of `finecast train` with the same options, step by step.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from draws import ROOT, scenario_file

from finecast.learners.learner import Learner, play
from finecast.learners.registry import learner_kind
from finecast.learners.runs.checkpoints import POLICY, Checkpoint, write_checkpoint
from finecast.learners.runs.config import RunConfig, run_config
from finecast.learners.runs.held_out import FIRST_SEED as HELD_OUT_SEED
from finecast.learners.runs.source import ScenarioSource
from finecast.learners.runs.warm_start import read_start, start_from
from finecast.learners.weights import tensors_of
from finecast.learners.world.baselines import Rolling
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import roll
from finecast.learners.world.episodes import Episodes
from finecast.problem.files import write_atomically
from finecast.problem.scenario import read_scenario

MARKS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the budget after which the policy is kept."""

EXPECTED_STEPS = 1200
"""Steps over which the synthetic share falls; about as many as the budget allows."""

HELD_OUT = 32
"""Held-out draws of every scenario."""

MIXTURE = ("slow-60", "persist-60")
"""Scenarios of training: slow and fast links."""


@dataclass(frozen=True)
class Run:
    """A training run, apart from its seed.

    Attributes
    ----------
    learner
        Registered name of the learner.
    options
        Options of the learner that differ from its defaults.
    source
        Options of the training draws that differ from the defaults.
    scenarios
        Names of the scenarios.
    warm
        Name of the run, of the same seed, whose policy is the start.
    summary
        One line for the tables.
    """

    learner: str
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    scenarios: tuple[str, ...] = MIXTURE
    warm: str = ""

    def config(self, seed: int, steps: int = 1_000_000_000) -> RunConfig:
        """Return the run as `finecast train` takes it."""
        table = {
            "learner": self.learner,
            "scenarios": [str(scenario_file(name).relative_to(ROOT)) for name in self.scenarios],
            "steps": steps,
            "seed": seed,
            "held_out": HELD_OUT,
            "source": {"draws": 32, **self.source},
            "options": dict(self.options),
        }
        return run_config(table)


ECHO = {"augmentation": "echo-state", "refresh": 200}

REAL = {"augmentation": "none"}

HINDSIGHT = {"draws": 8, "passes": 0.5, "decay_steps": 150}
"""The step size falls over about as many steps as the budget allows."""

FASTER = {"play_every": 2, "rows": 2048, "actor_rate": 1e-3, "average_rate": 0.01}
"""Options for a budget of minutes. The defaults are for longer runs."""


def _maasn(summary: str, source: Mapping[str, Any] = ECHO, **options: Any) -> Run:
    return Run("maasn-da", summary, {**FASTER, **options}, source)


LEADERS: dict[str, Run] = {
    "dcg": Run("dcg", "values of node sets, sum over nodes and pairs"),
    "maasn-da": _maasn("everything, credit by block"),
    "hindsight": Run("hindsight", "privileged labels, residual on mpc", HINDSIGHT),
}

PEERS: dict[str, Run] = {
    "vdn": Run("vdn", "values of node sets, sum over nodes"),
    "qmix": Run("qmix", "values of node sets, monotonic mixing"),
    "mappo": Run("mappo", "PPO, centralised critic"),
    "ippo": Run("ippo", "PPO, a critic for every node"),
    "happo": Run("happo", "PPO, nodes updated one after another"),
    "mat": Run("mat", "PPO, a sequence model over the nodes"),
    "graph": Run("graph", "PPO, a graph network over nodes and users"),
}

IN_TURN: dict[str, Run] = {
    f"{name}, keep in turn": replace(run, options={**run.options, "keep": "in-turn"})
    for name, run in LEADERS.items()
}

ABLATIONS: dict[str, Run] = {
    "no action semantics": _maasn("flat networks", action_semantics=False),
    "no augmentation": _maasn("real draws alone", REAL),
}

LONG: dict[str, Run] = {
    "dcg long": Run("dcg", "as dcg, 128 real draws, a longer budget", {}, {"draws": 128}),
}

GROUPS = {
    "leaders": LEADERS,
    "peers": PEERS,
    "in-turn": IN_TURN,
    "ablations": ABLATIONS,
    "long": LONG,
}
"""All runs by group, in the order of the tables."""

RUNS: dict[str, Run] = {name: run for group in GROUPS.values() for name, run in group.items()}


def trained(
    name: str, seed: int, budget_s: float, folder: Path, held: dict[str, Episodes]
) -> dict[str, Any]:
    """Train until the budget is spent; write marks and the best policy; return a summary.

    Parameters
    ----------
    name
        Name of a run in `RUNS`.
    seed
        Seed of draws, network and exploration.
    budget_s
        CPU seconds of updates.
    folder
        Folder for the checkpoints and the log.
    held
        Held-out draws by scenario, from `held_out_draws`.
    """
    run = RUNS[name]
    config = run.config(seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    # The real draws, outside of the budget.
    source, prepare_s = source_of(name, seed)
    kind = learner_kind(run.learner).load()
    options = config.learner_options
    # A new learner asks for its first pool, so that synthetic draws are made: they are paid for.
    began = time.process_time()
    learner: Learner = kind.Learner(options, source, seed=seed, device=torch.device("cpu"))
    spent = time.process_time() - began
    if run.warm:
        warm = folder.parent / f"{run.warm}-s{seed}"
        if not (warm / "done.json").exists():
            raise FileNotFoundError(f"{warm}: is not done; {name!r} starts from it")
        start_from(learner, read_start(warm, run.learner, options))

    # Updates and marks; only updates spend from the budget.
    step, wall = 0, time.perf_counter()
    marks: list[dict[str, float]] = []
    best_mean, best_mark = float("inf"), 0
    with (folder / "log.jsonl").open("w") as log:
        while len(marks) < len(MARKS):
            mark = len(marks)
            if spent >= MARKS[mark] * budget_s:
                against = held_out_ratio(learner, {k: held[k] for k in run.scenarios})
                saved = Checkpoint(
                    run.learner,
                    asdict(config.learner_options),
                    {**config.as_dict(), "steps": max(step, 1), "warm_start": run.warm},
                    step,
                    time.perf_counter() - wall,
                    spent,
                    {k: v for k, v in tensors_of(learner.parts()).items() if k.startswith(POLICY)},
                    metrics=against,
                )
                write_checkpoint(folder, f"mark{mark}", saved)
                mean = sum(against.values()) / len(against)
                marks.append({"mark": mark, "step": step, "cpu_s": spent, **against})
                log.write(json.dumps(marks[-1]) + "\n")
                log.flush()
                if mark == 0 or mean < best_mean:
                    best_mean, best_mark = mean, mark
                    write_checkpoint(folder, POLICY, saved)
                continue
            began = time.process_time()
            row = learner.step()
            spent += time.process_time() - began
            step += 1
            if step % 50 == 0:
                log.write(json.dumps({"step": step, "cpu_s": spent, **row}) + "\n")
    done = {
        "run": name,
        "seed": seed,
        "budget_s": budget_s,
        "prepare_s": prepare_s,
        "steps": step,
        "cpu_s": spent,
        "wall_s": time.perf_counter() - wall,
        "best_mark": best_mark,
        "best_step": int(marks[best_mark]["step"]),
        "marks": marks,
    }
    write_atomically(folder / "done.json", json.dumps(done, indent=1).encode())
    return done


def source_of(name: str, seed: int) -> tuple[ScenarioSource, float]:
    """Return the draws of a run and the CPU seconds of making them; runs on real draws share them.

    Synthetic draws are paid for by each run: their source is never shared.
    """
    run = RUNS[name]
    key = (run.scenarios, json.dumps(run.config(seed).as_dict()["source"], sort_keys=True), seed)
    if _shared.get("key") == key:
        return _shared["made"]
    began = time.process_time()
    scenarios = [read_scenario(scenario_file(scenario)) for scenario in run.scenarios]
    config = run.config(seed).source
    source = ScenarioSource(scenarios, config, seed, steps=EXPECTED_STEPS).make_all()
    made = source, time.process_time() - began
    if config.augmentation == "none":
        _shared.update(key=key, made=made)
    return made


_shared: dict[str, Any] = {}
"""The newest shared draws: `key` and `made`."""


def held_out_draws(names: tuple[str, ...], count: int) -> dict[str, Episodes]:
    """Return held-out draws with rates in closed form, by scenario."""
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + count)
    return {name: surrogate_episodes(read_scenario(scenario_file(name)), seeds) for name in names}


def held_out_ratio(learner: Learner, held: Mapping[str, Episodes]) -> dict[str, float]:
    """Return by scenario the mean of delay over that of `rolling`, less 1."""
    return {
        name: float((play(draws, learner.policy()).total / rolling_total(draws)).mean()) - 1.0
        for name, draws in held.items()
    }


def rolling_total(draws: Episodes) -> torch.Tensor:
    """Return (E,) the delay of `rolling`, s."""
    return roll(draws, Rolling(), rounds=3).total


def train_all(folder: Path, names: list[str], seeds: list[int], budget_s: float) -> Iterator[str]:
    """Make the runs that are not finished, and yield a line for each.

    A run that was cut off starts from the beginning.
    """
    held: dict[tuple[str, ...], dict[str, Episodes]] = {}
    for seed, name in itertools.product(seeds, names):
        target = folder / "runs" / f"{name}-s{seed}"
        if (target / "done.json").exists():
            continue
        scenarios = RUNS[name].scenarios
        if scenarios not in held:
            held[scenarios] = held_out_draws(scenarios, HELD_OUT)
        done = trained(name, seed, budget_s, target, held[scenarios])
        means = [sum(mark[k] for k in scenarios) / len(scenarios) for mark in done["marks"]]
        yield (
            f"{name} seed {seed}: {done['steps']} steps, {done['cpu_s']:.0f} CPU-s, "
            f"{done['wall_s']:.0f} s; against rolling, %: {[round(100 * m, 2) for m in means]}"
        )


def named(names: str) -> list[str]:
    """Return the runs of a list of names of runs and groups, separated by commas.

    Raises
    ------
    ValueError
        A name is unknown.
    """
    runs: list[str] = []
    for name in names.split(","):
        if name not in RUNS and name not in GROUPS:
            raise ValueError(f"{name!r} is unknown; known: {', '.join([*GROUPS, *RUNS])}")
        runs += GROUPS.get(name, {name: None})
    return runs
