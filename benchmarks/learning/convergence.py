"""The terms of the statement on convergence, measured: the gradient of the actors and its errors.

    python3 benchmarks/learning/convergence.py --seeds 0-2 -o FOLDER
    python3 benchmarks/learning/convergence.py --table -o FOLDER

A run of `maasn-da` on one scenario, with the options of the benchmark. At some steps the real draws
of its pool are played with exploration, and the gradient of the relaxed objective is computed on
all rows, exactly in the noise but for the Gumbel draws. At the last step, so are its errors, as
vectors of the size of the actors. Norms are of means over draws, without the bias of their noise:
independent parts are multiplied (`squared_norm`).
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from convergence_table import table
from draws import ROOT
from runs import ECHO, EXPECTED_STEPS, FASTER, Run
from stages import GROUP, Fields, Stage, all_returns, gradients, limited, played, returns
from torch import Generator, Tensor, nn

from finecast.learners.algorithms.actors import actors_of
from finecast.learners.algorithms.maasn import Learner
from finecast.learners.algorithms.set_values import (
    Rows,
    critic_view,
    set_costs,
    unit_of,
    value_after,
)
from finecast.learners.algorithms.stationarity import (
    margin,
    of_pairs,
    rows_in,
    squared_norm,
)
from finecast.learners.runs.source import ScenarioSource
from finecast.learners.world.environment import packed, step, unpacked
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import Pool
from finecast.problem.scenario import read_scenario

DRAWS = 32
"""Real training draws."""

MARKS = (0, 50, 100, 200, 400)
"""Steps at which the gradient is measured; the last one ends the run."""

PLAYED_ON = (2, 7, 12, 17)
"""Slots at which the price of storage is compared with the actors playing on."""

BLOCKS = 3
"""Blocks of every node and draw that are compared there."""

AHEAD = 1
"""Slots for which they play on; the critic's values of all blocks count after them."""


def played_on(
    learner: Learner, episodes: Episodes, values: Lookahead, stage: Stage, seed: int
) -> tuple[Tensor, Tensor]:
    """Return rows of keeping (Q,) and their costs (Q,) in units when the actors play on.

    Of every draw and node, some of the blocks whose costs are within the limit: what the block at
    the margin saves less what the block saves, each as a difference of two plays.
    """
    slot = stage.slot
    generator = Generator().manual_seed(seed)
    wanted: list[tuple[int, int, int]] = []  # draw, node, block of every copy that is looked at
    picked: list[tuple[int, int, int]] = []  # row, and the copies of the block and of the margin
    others_of, inside = {}, ~limited(stage.lessons, learner)
    offset = 0
    for turn in stage.turns:
        count = len(turn.rows.draw)
        if turn.keeping:
            n = turn.node
            others_of[n] = turn.others
            last, full = margin(n, slot, stage.delivery.sender, stage.cost, turn.others)
            for draw in full.nonzero()[:, 0].tolist():
                here = ((turn.rows.draw == draw) & inside[offset : offset + count]).nonzero()[:, 0]
                some = here[torch.randperm(len(here), generator=generator)[:BLOCKS]]
                at_margin = len(wanted)
                wanted.append((draw, n, int(last[draw])))
                for row in some.tolist():
                    picked.append((offset + row, len(wanted), at_margin))
                    wanted.append((draw, n, int(turn.rows.block[row])))
        offset += count
    draw, n, block = torch.tensor(wanted).T
    kept = packed(stage.keep)[draw]  # (C, J)
    of_others = torch.stack([others_of[m][d, b] for d, m, b in wanted]) & ~(1 << n)
    delays = []
    for sets in (of_others, of_others | 1 << n):
        cache = kept.clone()
        cache[torch.arange(len(draw)), block] = sets
        delays.append(rest(learner, episodes, values, draw, slot.t + 1, cache))
    saved = (delays[0] - delays[1]) / (slot.size[draw, block] * unit_of(slot)[draw])
    row, own, at_margin = torch.tensor(picked).T
    return row, (saved[at_margin] - saved[own]).float()


def rest(
    learner: Learner, episodes: Episodes, values: Lookahead, draw: Tensor, t: int, cached: Tensor
) -> Tensor:
    """Return (C,) seconds of slots from t on and of the time after them, by the critic.

    The actors play `AHEAD` slots without exploration, from caches (C, J) of these draws.
    """
    totals = []
    end = min(t + AHEAD, episodes.slots)
    for part in torch.arange(len(draw)).split(512):
        some, look = episodes.select(draw[part]), values.select(draw[part])
        actors = actors_of(learner.config, learner.actor, look)
        cache = unpacked(cached[part], episodes.nodes)
        total = torch.zeros(len(part), dtype=torch.float64)
        with torch.no_grad():
            for later in range(t, end):
                slot, before = some.slot(later), packed(cache)
                delivery, cache = step(slot, cache, actors, rounds=actors.rounds)
                total += delivery.delay.sum(dim=1)
            rows = Rows.where(slot.real)
            view = critic_view(slot, before, delivery.sender)
            cost = set_costs(learner.critic, view, None, rows)
            cost = cost.gather(1, rows.pick(packed(cache))[:, None])[:, 0]
            seconds = cost * rows.pick(slot.size) * unit_of(slot)[rows.draw]
            total = total.index_add(0, rows.draw, seconds)
        totals.append(total)
    return torch.cat(totals)


def measured(seed: int, scenario: str) -> dict[str, Any]:
    """Train with a seed; return what was measured."""
    clock = time.process_time()
    run = Run("maasn-da", "", {**FASTER, "keep": "in-turn"}, {**ECHO, "draws": DRAWS}, (scenario,))
    config = run.config(seed)
    scenarios = [read_scenario(ROOT / name) for name in config.scenarios]
    source = ScenarioSource(scenarios, config.source, seed, steps=EXPECTED_STEPS)
    learner = Learner(config.learner_options, source, seed=seed, device=torch.device("cpu"))
    first = copy.deepcopy(learner.actor)
    real = source.at(MARKS[-1])
    episodes = real.episodes.select(range(real.real))
    values = real.values.select(torch.arange(real.real))
    older = learner.config.play_every * (learner.config.lessons + episodes.slots)
    curve, norms, old = [], [], (learner.actor, learner.critic)
    print(f"seed {seed}: prepared, {time.process_time() - clock:.0f} CPU-s", flush=True)
    for number in range(MARKS[-1] + 1):
        if number == MARKS[-1] - older:
            old = (copy.deepcopy(learner.actor), copy.deepcopy(learner.critic))
        if number in MARKS:
            stages = played(learner, learner.actor, learner.critic, episodes, values, number)
            fields = Fields(learner, learner.actor, stages, number)
            terms = {"gradient": fields.of_loss()}
            if number == MARKS[-1]:
                break
            parts = gradients(learner, learner.actor, stages, terms)["gradient"]
            curve.append(
                {
                    "step": number,
                    "norm": norm(parts),
                    "objective": fields.objective(),
                    "cpu_s": round(time.process_time() - clock, 1),
                }
            )
            print(json.dumps(curve[-1]), flush=True)
        learner.step()
        gradient = [p.grad for p in learner.actor.parameters() if p.grad is not None]
        if gradient:
            norms.append(float(torch.cat([g.flatten() for g in gradient]).norm()))
    terms = last(learner, first, old, episodes, values, stages, fields, source.at(MARKS[-1]))
    spent = time.process_time() - clock
    return {"seed": seed, "curve": curve, "batch": norms, "all_cpu_s": spent} | terms


def norm(parts: Tensor) -> float:
    """Return the norm of the mean without bias, with the sign of its square."""
    square = float(squared_norm(parts))
    return abs(square) ** 0.5 * (1 if square >= 0 else -1)


def last(
    learner: Learner,
    first: nn.Module,
    old: tuple[nn.Module, nn.Module],
    episodes: Episodes,
    values: Lookahead,
    stages: list[Stage],
    fields: Fields,
    pool: Pool,
) -> dict[str, Any]:
    """Return the terms at the last step."""
    clock = time.process_time()
    actor, critic = learner.actor, learner.critic
    # Costs: returns at storage prices, and what pairs of nodes can represent of them.
    whole = all_returns(stages)
    over = [table - stage.base for table, stage in zip(whole, stages, strict=True)]
    pairs = [of_pairs(table) + stage.base for table, stage in zip(over, stages, strict=True)]
    gone = [stage.cost for stage in stages]

    def less(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
        return [x - y for x, y in zip(a, b, strict=True)]

    backups, ahead = returns(stages, 1), returns(stages, AHEAD)
    changes = {
        "critic": fields.costs_of(less(gone, pairs)),
        "backup": fields.costs_of(less(gone, backups)),
        "misfit": fields.costs_of(less(pairs, whole)),
    }
    terms: dict[str, Sequence[Tensor]] = {
        "gradient": fields.of_loss(),
        "unlimited": fields.of_loss(limited=False),
        "hard": fields.of_loss(tau=0.0),
        **{name: fields.of_costs(costs) for name, costs in changes.items()},
    }
    print(f"terms, {time.process_time() - clock:.0f} CPU-s", flush=True)
    # Prices: the actors play on, on a sample of the rows of keeping in some slots.
    sampled: dict[int, tuple[Tensor, Tensor]] = {
        i: played_on(learner, episodes, values, stages[i], i) for i in PLAYED_ON
    }
    print(f"played on, {time.process_time() - clock:.0f} CPU-s", flush=True)
    price, by_price = [], []
    change = fields.costs_of(less(ahead, gone))
    for i, stage in enumerate(stages):
        costs = torch.zeros_like(stage.lessons.cost)
        if i in sampled:
            row, cost = sampled[i]
            told = stage.lessons.cost[row, 0] - stage.lessons.cost[row, 1] + change[i][row, 0]
            by_price.append(told - cost)
            # Every draw and node has so many rows, of which so many are sampled.
            rows, node = rows_in(stage.turns)
            group = rows.draw * episodes.nodes + node
            inside = stage.lessons.keeping & ~limited(stage.lessons, learner)
            counts = torch.bincount(group[inside], minlength=episodes.draws * episodes.nodes)
            taken = torch.bincount(group[row], minlength=len(counts))
            scale = (counts / taken.clamp(min=1))[group[row]] * len(stages) / len(PLAYED_ON)
            costs[row, 0] = by_price[-1] * scale
        price.append(costs)
    terms["price"] = fields.of_costs(price)
    # Older rows: actors and critic of some steps ago, with the same noise.
    before = played(learner, *old, episodes, values, MARKS[-1])
    stale = Fields(learner, actor, before, MARKS[-1])
    parts = gradients(learner, actor, stages, terms)
    parts["older"] = (
        gradients(learner, actor, before, {"older": stale.of_loss()})["older"] - parts["gradient"]
    )
    # Synthetic draws.
    made = torch.arange(pool.real, pool.episodes.draws)
    made = made[: len(made) // GROUP * GROUP]
    fake = played(
        learner, actor, critic, pool.episodes.select(made), pool.values.select(made), MARKS[-1] + 1
    )
    synthetic = gradients(learner, actor, fake, {"g": Fields(learner, actor, fake, 7).of_loss()})[
        "g"
    ]
    share = 1.0 - pool.real / pool.episodes.draws
    print(f"gradients, {time.process_time() - clock:.0f} CPU-s", flush=True)
    parts["relaxation"] = parts["gradient"] - parts["hard"]
    parts["clip"] = parts["gradient"] - parts["unlimited"]
    # Objective of two actors on the rows of two actors, with one critic.
    start = played(learner, first, critic, episodes, values, MARKS[-1])
    objective = {
        f"{who} on rows of {whose}": Fields(learner, network, rows, 0).objective()
        for who, network in (("start", first), ("trained", actor))
        for whose, rows in (("start", start), ("trained", stages))
    }
    # Of single rows of keeping, in temperatures; and what no choice in a slot is better by.
    keeping = [stage.lessons.keeping & ~limited(stage.lessons, learner) for stage in stages]
    rows_of = {
        name: torch.cat([c[k, 0] for c, k in zip(costs, keeping, strict=True)])
        for name, costs in {**changes, "gradient": fields.regrets()}.items()
    } | {"price": torch.cat(by_price)}
    per_temperature = {
        name: values / (1.0 if name == "gradient" else learner.config.temperature)
        for name, values in rows_of.items()
    }
    return {
        "rows": {
            name: [float(values.abs().quantile(q)) for q in (0.5, 0.9)]
            for name, values in per_temperature.items()
        },
        "certificate": certificate(stages, values),
        "actor": actor.state_dict(),
        "critic": critic.state_dict(),
        "share": share,
        "parts": parts,
        "synthetic": synthetic,
        "objective": objective,
        "limited": float(
            sum(limited(stage.lessons, learner).sum() for stage in stages)
            / sum(stage.lessons.keeping.sum() for stage in stages)
        ),
        "cpu_s": time.process_time() - clock,
    }


def certificate(stages: Sequence[Stage], values: Lookahead) -> list[float]:
    """Return, of every slot but the last, what no feasible choice is better by for given values.

    It is the duality gap of the statement, in means over draws, over the mean delay of a slot.
    """
    delay = torch.stack([stage.delivery.delay.sum(dim=1).mean() for stage in stages]).mean()
    gaps = []
    for stage in stages[:-1]:
        slot, kept = stage.slot, packed(stage.keep)[..., None]
        priced = stage.rent[:, None] + stage.cost
        least = value_after(priced.flatten(0, 1)).reshape(priced.shape)
        missed = priced.gather(2, kept) - least.gather(2, stage.delivery.sender[..., None])
        missed = (missed[..., 0] * slot.size).sum(dim=1) * unit_of(slot)
        free = slot.storage - (stage.keep * slot.size[:, None]).sum(dim=2)
        idle = (values.slot(slot.t).price[:, 0] * free).sum(dim=1)
        gaps.append(float((missed + idle).mean() / delay))
    return gaps


def main() -> None:
    """Measure seeds one after another; leave a file for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--scenario", default="slow-60")
    parser.add_argument("--seeds", default="0-2", help="FIRST-LAST")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--table", action="store_true", help="print what the folder has")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(table([torch.load(path) for path in sorted(given.output.glob("seed*.pt"))]))
        return
    given.output.mkdir(parents=True, exist_ok=True)
    begin, _, end = given.seeds.partition("-")
    for seed in range(int(begin), int(end or begin) + 1):
        torch.save(measured(seed, given.scenario), given.output / f"seed{seed}.pt")


if __name__ == "__main__":
    main()
