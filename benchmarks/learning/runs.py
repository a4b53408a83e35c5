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
"""Steps over which the synthetic share falls; about those that the budget allows."""

HELD_OUT = 32
"""Held-out draws of every scenario."""

MIXTURE = ("slow-60", "persist-60", "persist")
"""Scenarios that are trained on: fast and slow links, and another library."""


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
    warm
        Name of the run, of the same seed, that it starts from.
    summary
        For the tables.
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
"""The steps over which the step size falls are about those that the budget allows."""

FASTER = {"play_every": 2, "rows": 2048, "actor_rate": 1e-3, "average_rate": 0.01}
"""For a budget of minutes; the defaults are for longer runs."""

FEW = {"draws": 8}
"""Short of real episodes."""


def _maasn(summary: str, source: Mapping[str, Any] = ECHO, **options: Any) -> Run:
    return Run("maasn-da", summary, {**FASTER, **options}, source)


def _periodic(summary: str, source: Mapping[str, Any], **options: Any) -> Run:
    return Run("maasn-da", summary, {**FASTER, **options}, {**FEW, **source}, ("periodic",))


LEADERS: dict[str, Run] = {
    "maasn-da": _maasn("everything"),
    "hindsight": Run("hindsight", "privileged labels, residual on mpc", HINDSIGHT),
    "dcg": Run("dcg", "values of node sets, sum over nodes and pairs"),
}

PEERS: dict[str, Run] = {
    "vdn": Run("vdn", "values of node sets, sum over nodes"),
    "qmix": Run("qmix", "values of node sets, monotonic mixing"),
    "mappo": Run("mappo", "PPO, centralised critic"),
    "ippo": Run("ippo", "PPO, a critic for every node"),
    "hindsight without mpc": Run(
        "hindsight",
        "privileged labels, residual on the next slot's expected delay",
        {**HINDSIGHT, "lookahead": False},
    ),
    "maasn-da from hindsight": Run(
        "maasn-da",
        "everything, started from the run before it: twice the budget in all",
        FASTER,
        ECHO,
        warm="hindsight without mpc",
    ),
}

ABLATIONS: dict[str, Run] = {
    "no action semantics": _maasn("flat networks", action_semantics=False),
    "no augmentation": _maasn("real draws alone", REAL),
    "noise": _maasn("copies with noise", {**ECHO, "augmentation": "noise"}),
    "oracle": _maasn("true generator", {**ECHO, "augmentation": "oracle"}),
    "team credit": _maasn("critic from the sum of delays", credit="team"),
    "all at once": _maasn("nodes decide simultaneously", in_turn=False),
}

PERIODIC: dict[str, Run] = {
    "maasn-da periodic": _periodic("everything, 8 real draws", ECHO),
    "no augmentation periodic": _periodic("8 real draws alone", REAL),
    "noise periodic": _periodic("copies with noise", {**ECHO, "augmentation": "noise"}),
    "oracle periodic": _periodic("true generator", {**ECHO, "augmentation": "oracle"}),
    "no action semantics periodic": _periodic("flat networks", ECHO, action_semantics=False),
}

LONG: dict[str, Run] = {
    "dcg long": Run("dcg", "as dcg, 128 real draws, a longer budget", {}, {"draws": 128}),
    "hindsight long": Run(
        "hindsight",
        "as hindsight, 128 real draws, a longer budget",
        {**HINDSIGHT, "decay_steps": 1000},
        {"draws": 128},
    ),
}

GROUPS = {
    "leaders": LEADERS,
    "peers": PEERS,
    "ablations": ABLATIONS,
    "periodic": PERIODIC,
    "long": LONG,
}
"""What can be trained, in the order of the tables."""

RUNS: dict[str, Run] = {name: run for group in GROUPS.values() for name, run in group.items()}


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
    options = config.learner_options
    learner: Learner = kind.Learner(options, source, seed=seed, device=torch.device("cpu"))
    if run.warm:
        warm = folder.parent / f"{run.warm}-s{seed}"
        if not (warm / "done.json").exists():
            raise FileNotFoundError(f"{warm}: is not done; {name!r} starts from it")
        start_from(learner, read_start(warm, run.learner, options))
    spent, step, mark, best, wall = 0.0, 0, 0, None, time.perf_counter()
    marks: list[dict[str, float]] = []
    with (folder / "log.jsonl").open("w") as log:
        while mark < len(MARKS):
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
    held: dict[tuple[str, ...], dict[str, Episodes]] = {}
    for name, seed, target in wanted:
        of = RUNS[name].scenarios
        if of not in held:
            held[of] = held_out_draws(of, HELD_OUT)
        done = trained(name, seed, budget_s, target, held[of])
        shown = [round(100 * sum(list(m.values())[3:]) / (len(m) - 3), 2) for m in done["marks"]]
        yield (
            f"{name} seed {seed}: {done['steps']} steps, {done['cpu_s']:.0f} CPU-s, "
            f"{done['wall_s']:.0f} s; against rolling, %: {shown}"
        )


def named(names: str) -> list[str]:
    """Return the runs that are named, alone or by their group, with commas in between.

    Raises
    ------
    ValueError
        A name is unknown.
    """
    found: list[str] = []
    for name in names.split(","):
        if name not in RUNS and name not in GROUPS:
            raise ValueError(f"{name!r} is unknown; known: {', '.join([*GROUPS, *RUNS])}")
        found += GROUPS.get(name, {name: None})
    return found
