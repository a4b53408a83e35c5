"""Training runs of the learners' benchmark: equal CPU budgets, one process, one thread.

The budget is the CPU time of the learner's updates, labels and synthetic episodes included; making
the first pool of draws costs every learner the same and is noted apart. The policy is kept at
`MARKS` of the budget. The one that is evaluated is the best of them on held-out draws, with rates
in closed form: a choice that costs the budget nothing and sees no evaluation draw.

A run equals that of `finecast train` with the options in its `run.toml`, step by step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from learning_draws import ROOT, scenario_file

from learners.baselines import Rolling
from learners.checkpoints import POLICY, Checkpoint, write_checkpoint
from learners.config import RunConfig, run_config
from learners.draws import surrogate_episodes
from learners.environment import roll
from learners.episodes import Episodes
from learners.held_out import FIRST_SEED as HELD_OUT_SEED
from learners.learner import Learner, learner_kind, play, tensors_of
from learners.source import ScenarioSource
from problem.files import write_atomically
from problem.scenario import read_scenario

MARKS = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Shares of the budget after which the policy is kept."""

EXPECTED_STEPS = 1200
"""Steps over which the synthetic share falls; about those that the budget allows."""

HELD_OUT = 16
"""Held-out draws of every scenario."""

MIXTURE = ("persist-60", "slow-60", "persist")
"""Scenarios that the leaders train on."""


@dataclass(frozen=True)
class Run:
    """What is trained, under one name.

    Attributes
    ----------
    learner
        Registered name.
    options
        Of the learner, where they differ from its own.
    source
        Of the training draws, where they differ.
    scenarios
        Names.
    held_out
        Held-out draws of every scenario.
    marks
        Shares of the budget after which the policy is kept.
    summary
        For the tables.
    """

    learner: str
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    scenarios: tuple[str, ...] = MIXTURE
    held_out: int = HELD_OUT
    marks: tuple[float, ...] = MARKS

    def config(self, seed: int, steps: int = 1_000_000_000) -> RunConfig:
        """Return the run as `finecast train` takes it."""
        table = {
            "learner": self.learner,
            "scenarios": [str(scenario_file(name).relative_to(ROOT)) for name in self.scenarios],
            "steps": steps,
            "seed": seed,
            "held_out": self.held_out,
            "source": {"draws": 128, **self.source},
            "options": dict(self.options),
        }
        return run_config(table)


TWO = ("slow-60", "persist")
"""What MAASN-DA, its ablations and the peers train on."""

COARSE = {"price_steps": 20}
"""Earlier runs; their other slots had a quarter of the steps, today half."""

EIGHT = (
    *("persist-60", "persist-tight-60", "persist-roomy-60", "persist-many-60"),
    *("slow-60", "slow-tight-60", "slow-fresh-60", "slow-many-60"),
)
"""A mixture that differs in links, storage, library and persistence."""

HINDSIGHT = {"draws": 8, "passes": 0.5, "decay_steps": 150}
"""The steps over which the step size falls are about those that the budget allows."""

ECHO = {"draws": 32, "augmentation": "echo-state", "refresh": 200}
"""32 real episodes: few enough for synthetic ones to matter."""

RUNS: dict[str, Run] = {
    "hindsight": Run(
        "hindsight", "privileged labels, residual on mpc", HINDSIGHT, {"draws": 48}, EIGHT
    ),
    "hindsight coarse prices": Run(
        "hindsight",
        "the same, storage prices of 20 steps",
        HINDSIGHT,
        {"draws": 48, **COARSE},
        EIGHT,
    ),
    "hindsight on three coarse prices": Run(
        "hindsight", "the same", {**HINDSIGHT, "decay_steps": 80}, {"draws": 64, **COARSE}
    ),
    "hindsight without mpc": Run(
        "hindsight",
        "privileged labels, residual on the next slot's expected delay",
        {**HINDSIGHT, "mpc": False},
        {"draws": 48},
        EIGHT,
    ),
}


FASTER = {"batch": 8, "play_every": 1, "rows": 2048, "actor_rate": 1e-3, "critic_rate": 1e-3}
"""For a budget of minutes; the defaults are for longer runs."""


def _maasn(summary: str, source: Mapping[str, Any] = ECHO, **options: Any) -> Run:
    return Run("maasn-da", summary, {**FASTER, **options}, source, TWO)


FEW = {**ECHO, "draws": 8}
"""Short of real episodes."""


def _periodic(summary: str, source: Mapping[str, Any] = FEW, **options: Any) -> Run:
    return Run("maasn-da", summary, {**FASTER, **options}, source, ("periodic",))


def _peer(learner: str, summary: str) -> Run:
    return Run(learner, summary, {}, {"draws": 32}, TWO)


RUNS |= {
    "maasn-da": _maasn("everything"),
    "maasn-da coarse prices": _maasn("the same, storage prices of 20 steps", {**ECHO, **COARSE}),
    "mappo coarse prices": Run(
        "mappo", "the same, storage prices of 20 steps", {}, {"draws": 32, **COARSE}, TWO
    ),
    "no action semantics": _maasn("flat networks", action_semantics=False),
    "no augmentation": _maasn("real draws alone", {"draws": 32}),
    "noise": _maasn("copies with noise", {**ECHO, "augmentation": "noise"}),
    "oracle": _maasn("true generator", {**ECHO, "augmentation": "oracle"}),
    "team credit": _maasn("critic from the sum of delays", credit="team"),
    "all at once": _maasn("nodes decide simultaneously", in_turn=False),
    "ippo": _peer("ippo", "PPO, a critic for every node"),
    "mappo": _peer("mappo", "PPO, centralised critic"),
    "vdn": _peer("vdn", "values of node sets, sum"),
    "qmix": _peer("qmix", "values of node sets, monotonic mixing"),
    "maasn-da persist": Run(
        "maasn-da",
        "everything, to be shipped: smaller steps",
        {**FASTER, "actor_rate": 3e-4},
        {**ECHO, "draws": 64},
        ("persist",),
        held_out=64,
        marks=tuple(i / 10 for i in range(11)),
    ),
    "maasn-da periodic": _periodic("everything, 8 real draws"),
    "no action semantics periodic": _periodic("flat networks", action_semantics=False),
    "no augmentation periodic": _periodic("8 real draws alone", {"draws": 8}),
    "noise periodic": _periodic("copies with noise", {**FEW, "augmentation": "noise"}),
    "oracle periodic": _periodic("true generator", {**FEW, "augmentation": "oracle"}),
    "mappo periodic": Run("mappo", "PPO, centralised critic", {}, {"draws": 8}, ("periodic",)),
}


def trained(
    name: str, seed: int, budget_s: float, folder: Path, held: dict[str, Episodes]
) -> dict[str, Any]:
    """Train until the budget is spent; leave marks and the best policy; return what happened.

    Parameters
    ----------
    name
        In `RUNS`.
    seed
        Of draws, network and exploration.
    budget_s
        CPU seconds of updates.
    folder
        For the checkpoints and the log.
    held
        Held-out draws by scenario, see `held_out_draws`.
    """
    run = RUNS[name]
    config = run.config(seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    began = time.process_time()
    scenarios = [read_scenario(scenario_file(one)) for one in run.scenarios]
    source = ScenarioSource(scenarios, config.source, seed, steps=EXPECTED_STEPS)
    prepare_s = time.process_time() - began
    kind = learner_kind(run.learner).load()
    learner: Learner = kind.start(
        config.learner_options, source, seed=seed, device=torch.device("cpu")
    )
    spent, step, mark, best, wall = 0.0, 0, 0, None, time.perf_counter()
    marks: list[dict[str, float]] = []
    with (folder / "log.jsonl").open("w") as log:
        while mark < len(run.marks):
            if spent >= run.marks[mark] * budget_s:
                against = held_out_ratio(learner, {k: held[k] for k in run.scenarios})
                saved = Checkpoint(
                    run.learner,
                    asdict(config.learner_options),
                    {**config.as_dict(), "steps": max(step, 1)},
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
                if best is None or mean < best[0]:
                    best = (mean, mark)
                    write_checkpoint(folder, POLICY, saved)
                mark += 1
                continue
            before = time.process_time()
            row = learner.step()
            spent += time.process_time() - before
            step += 1
            if step % 50 == 0:
                log.write(json.dumps({"step": step, "cpu_s": spent, **row}) + "\n")
    assert best is not None
    done = {
        "run": name,
        "seed": seed,
        "budget_s": budget_s,
        "prepare_s": prepare_s,
        "steps": step,
        "cpu_s": spent,
        "wall_s": time.perf_counter() - wall,
        "best_mark": best[1],
        "best_step": int(marks[best[1]]["step"]),
        "marks": marks,
    }
    write_atomically(folder / "done.json", json.dumps(done, indent=1).encode())
    return done


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
    """Make the runs that are not finished; a run that was cut off starts anew."""
    wanted = [(name, seed, folder / "runs" / f"{name}-s{seed}") for name in names for seed in seeds]
    wanted = [one for one in wanted if not (one[2] / "done.json").exists()]
    held: dict[tuple[tuple[str, ...], int], dict[str, Episodes]] = {}
    for name, seed, target in wanted:
        of = RUNS[name].scenarios, RUNS[name].held_out
        held.setdefault(of, held_out_draws(*of))
        done = trained(name, seed, budget_s, target, held[of])
        shown = [round(100 * sum(list(m.values())[3:]) / (len(m) - 3), 2) for m in done["marks"]]
        yield (
            f"{name} seed {seed}: {done['steps']} steps, {done['cpu_s']:.0f} CPU-s, "
            f"{done['wall_s']:.0f} s; against rolling, %: {shown}"
        )
