"""Plays the methods of the learners' benchmark on the evaluation draws, many draws at once."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from draws import CLASSES, FIRST_SEED, ROOT, prepared
from torch import Tensor

from finecast.learners.algorithms.hindsight_labels import hindsight_of
from finecast.learners.learner import TrainedPolicy, play
from finecast.learners.registry import learner_kind
from finecast.learners.runs.checkpoints import read_checkpoint
from finecast.learners.world.baselines import Replacement, Rolling, Static, of_blocks
from finecast.learners.world.beliefs import beliefs_of
from finecast.learners.world.environment import JointRule, NodePolicy, View, roll, step
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import Planned, lookahead_of
from finecast.problem.arrays import BoolArray
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.popularity import most_popular
from finecast.solvers.heuristics.trimcaching import hit_problem
from finecast.solvers.heuristics.trimcaching_hits import generic_greedy, successive_programme
from finecast.solvers.online import Prior, prior_of

PLACEMENTS: dict[str, Callable[[Prior], BoolArray]] = {
    "popular blocks": most_popular,
    "popular whole models": lambda prior: most_popular(prior, "model"),
    "trimcaching-gen": lambda prior: generic_greedy(hit_problem(prior)),
    "trimcaching-spec": lambda prior: successive_programme(hit_problem(prior))[0],
    "greedy-online": greedy_by_popularity,
}
"""Static methods: the blocks that every node holds in all slots."""


@dataclass(frozen=True)
class Game:
    """A policy and how the nodes decide: in turn, in how many rounds, and by which joint rule."""

    policy: NodePolicy
    in_turn: bool = True
    rounds: int = 1
    joint: JointRule = ""


GAMES = {
    "lru": Game(Replacement("recency")),
    "lfu": Game(Replacement("frequency")),
    "rolling": Game(Rolling(), rounds=3, joint="exact"),
    "rolling, keep in turn": Game(Rolling(), rounds=3),
    "rolling all at once": Game(Rolling(), in_turn=False),
}
"""Classical online methods."""

PROGRAMME = "programme"
"""The joint keep rule on the values of every block's dynamic programme, which are no learner's."""

HORIZONS = {"mpc-3": 3}
"""Coming slots of the variants of `mpc`."""

HINDSIGHT = "values in hindsight"
"""No method but a reference: `rolling` on values that know all slots."""

BASELINES = (*PLACEMENTS, *GAMES, *HORIZONS, PROGRAMME, HINDSIGHT)

SHIPPED = {
    f"{header.parent.name}, shipped": header
    for header in sorted((ROOT / "data" / "checkpoints").glob("*/policy.json"))
    if header.parent.name not in ("delayed", "local")
}
"""Checkpoints that ship with finecast, but those for nodes that decide apart."""

TIMED_DRAWS = 8
"""Draws on which decisions are timed."""

CURVE_DRAWS = 16
"""Draws on which the curves are measured."""


def baseline(name: str, kind: str, folder: Path, most: int) -> Tensor:
    """Return (E,) the total delays of a classical method, s."""
    draws = prepared(folder, kind, HORIZONS.get(name, 3), most)
    if name in GAMES:
        game = GAMES[name]
        rule = {"in_turn": game.in_turn, "rounds": game.rounds, "joint": game.joint}
        return roll(draws, game.policy, **rule).total
    if name == PROGRAMME:
        return torch.cat(
            [
                roll(planned(draws.select([draw]), kind, draw), Planner(), joint="exact").total
                for draw in range(draws.draws)
            ]
        )
    if name in HORIZONS:
        return lookahead_of(draws)[1].total
    if name == HINDSIGHT:
        return roll(draws, Planned(hindsight_of(draws).values), rounds=3).total
    start = torch.zeros_like(draws.start)
    for draw in range(draws.draws):
        cache = PLACEMENTS[name](prior_of(CLASSES[kind].instance(draw)))
        start[draw, :, : cache.shape[1]] = torch.from_numpy(cache)
    return roll(draws, Static(), start=start).total


@dataclass(frozen=True)
class Planner(Rolling):
    """The joint keep rule on the values of the programme, with everything known."""

    def set_costs(self, view: View) -> Tensor:
        """Return the planner's costs."""
        assert view.slot.beliefs is not None
        return of_blocks(view.slot, view.slot.beliefs.expert)


def planned(episode: Episodes, kind: str, draw: int) -> Episodes:
    """Return an episode of one draw with the values that `Planner` needs."""
    return replace(episode, beliefs=beliefs_of(CLASSES[kind].instance(draw), "full"))


def policy_of(header: Path) -> TrainedPolicy:
    """Return the policy of a checkpoint, by its header's path."""
    checkpoint = read_checkpoint(header)
    kind = learner_kind(checkpoint.learner)
    options = kind.config(checkpoint.options)
    policy: TrainedPolicy = kind.load().trained(options, checkpoint.tensors)
    return policy


def evaluated(folder: Path, classes: list[str], methods: list[str], most: int) -> Iterator[str]:
    """Play the methods on the classes, append rows to `results.jsonl`, yield a line for each.

    Rows that the file has already are left out.
    """
    path = folder / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    played = {(row["class"], row["method"], row["seed"], row["mark"], row["draw"]) for row in rows}
    for kind in classes:
        draws = prepared(folder, kind, 3, most)
        for name, seed, mark, header in players(folder, methods):
            count = min(most, draws.draws) if mark is None else min(CURVE_DRAWS, most, draws.draws)
            if (kind, name, seed, mark, FIRST_SEED + count - 1) in played:
                continue
            chosen = draws.select(range(count))
            began = time.process_time()
            if header is None:
                total = baseline(name, kind, folder, count)
            else:
                try:
                    total = play(chosen, policy_of(header)).total
                except ValueError as error:  # a flat network serves one number of nodes
                    yield f"{kind} {name} seed {seed} mark {mark}: is not played: {error}"
                    continue
            spent = time.process_time() - began
            gap = total / chosen.bound - 1.0
            key = {"class": kind, "method": name, "seed": seed, "mark": mark}
            lines = [
                json.dumps(
                    {
                        **key,
                        "draw": FIRST_SEED + draw,
                        "delay": float(total[draw]),
                        "bound": float(chosen.bound[draw]),
                        "gap": float(gap[draw]),
                    }
                )
                for draw in range(count)
            ]
            with path.open("ab", buffering=0) as stream:  # whole, whoever else is writing
                stream.write(("\n".join(lines) + "\n").encode())
            yield (
                f"{kind} {name} seed {seed} mark {mark}: {100 * float(gap.mean()):.2f} % "
                f"({count} draws, {spent:.1f} CPU-s)"
            )


def players(
    folder: Path, methods: list[str]
) -> Iterator[tuple[str, int | None, int | None, Path | None]]:
    """Yield name, seed, mark and checkpoint of everything to play; baselines have only a name."""
    for name in BASELINES:
        if name in methods or "baselines" in methods:
            yield name, None, None, None
    for name, header in SHIPPED.items():
        if name in methods or "shipped" in methods:
            yield name, None, None, header
    for done in sorted(folder.glob("runs/*/done.json")):
        run = json.loads(done.read_text())
        if run["run"] in methods or "runs" in methods:
            yield run["run"], run["seed"], None, done.parent / "policy.json"
            if "curves" in methods:
                for mark in range(len(run["marks"])):
                    yield run["run"], run["seed"], mark, done.parent / f"mark{mark}.json"


def decision_times(folder: Path, kind: str, runs: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the CPU milliseconds of deciding one slot of one draw, by method: median over draws.

    The time covers pulls and keeps of all nodes, features, look-ahead and the environment's own
    step. It leaves out the expected tables of the slot, which every method but LRU and LFU needs.
    Reading the clock of the process takes long, so the whole episode is timed and divided by its
    slots.
    """
    for name in (*GAMES, *HORIZONS, *SHIPPED, *runs):
        draws = prepared(folder, kind, HORIZONS.get(name, 3), TIMED_DRAWS)
        spent = []
        for draw in (0, *range(draws.draws)):  # the first one twice: once to warm up
            episode = draws.select([draw])
            slots = [episode.slot(t) for t in range(episode.slots)]
            game = GAMES["rolling"] if name in HORIZONS else _game(folder, name)
            began, cache = time.process_time(), episode.start
            if name in HORIZONS:
                lookahead_of(episode)
            else:
                with torch.no_grad():
                    for slot in slots:
                        _, cache = step(
                            slot,
                            cache,
                            game.policy,
                            in_turn=game.in_turn,
                            rounds=game.rounds,
                            joint=game.joint,
                        )
            spent.append((time.process_time() - began) / len(slots))
        yield {"class": kind, "method": name, "ms": 1e3 * statistics.median(spent[1:])}


def _game(folder: Path, name: str) -> Game:
    """Return how a method is played."""
    if name in GAMES:
        return GAMES[name]
    policy = policy_of(SHIPPED.get(name, folder / "runs" / f"{name}-s0" / "policy.json"))
    return Game(policy, policy.in_turn, policy.rounds, getattr(policy, "joint", ""))


def described(folder: Path) -> list[dict[str, Any]]:
    """Return the summaries of the finished runs."""
    return [
        {**json.loads(done.read_text()), "folder": done.parent.name}
        for done in sorted(folder.glob("runs/*/done.json"))
    ]
