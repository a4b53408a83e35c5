"""Slot-steps per second of the learners' environment, and what episodes cost to make.

    python3 benchmarks/learning/speed.py
    python3 benchmarks/learning/speed.py --batches 32,256 --repeats 5 --true 2 --json

N = 4, J = 60, K = 12, T = 20, tables computed beforehand, one thread. `wall` is by the clock, `cpu`
by the time the process got. One slot-step is one slot of one draw.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finecast.learners.networks.feature_basis import basis_of
from finecast.learners.networks.features import features
from finecast.learners.world.baselines import Replacement, Rolling
from finecast.learners.world.draws import episodes_of, surrogate_episodes
from finecast.learners.world.environment import View, roll
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import Lookahead, Planned, lookahead_of
from finecast.problem.scenario import Scenario, read_scenario
from finecast.solvers.solve import versions

PERSIST = Path(__file__).resolve().parents[2] / "data" / "scenarios" / "persist.toml"


def scenario() -> Scenario:
    """Return `persist` with a made-up library of 60 blocks."""
    library = {"synthetic": {"models": 24, "blocks": 60, "families": 4}}
    sections = {**read_scenario(PERSIST).model_dump(exclude_none=True), "library": library}
    return Scenario.model_validate(sections)


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the least wall and processor seconds of some calls, after one that does not count."""
    call()
    wall, cpu = [], []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - clock)
        cpu.append(time.process_time() - processor)
    return min(wall), min(cpu)


def described(draws: Episodes, look: Lookahead, in_turn: bool) -> None:
    """Compute all features that deciding one slot takes: pulls at once, keeps as asked."""
    slot, start = draws.slot(draws.slots // 2), draws.start
    cached = (start.long() << torch.arange(draws.nodes)[:, None]).sum(dim=1)
    values = look.slot(slot.t)
    view = View(slot, cached, cached, torch.zeros_like(cached), in_turn=in_turn, keeping=True)
    basis = basis_of(view, values)
    features(view, None, values, basis)
    for n in range(draws.nodes) if in_turn else [None]:
        features(view, n, values, basis)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", default="1,32,256", help="numbers of draws at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--true", type=int, default=1, help="true episodes to time, 0 for none")
    parser.add_argument("--json", action="store_true", help="a line of JSON per figure")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def report(what: str, **figures: float) -> None:
        if options.json:
            print(json.dumps({"what": what, **figures, **versions()}))
        else:
            print(what, *(f"{name} {value:,.4g}" for name, value in figures.items()), sep="  ")

    setting = scenario()
    drawn = 16
    clock, processor = time.perf_counter(), time.process_time()
    base = surrogate_episodes(setting, range(drawn), exponent=0.5)
    report(
        "surrogate episode, s per draw",
        wall=(time.perf_counter() - clock) / drawn,
        cpu=(time.process_time() - processor) / drawn,
    )
    if options.true:
        instances = [setting.generate(seed) for seed in range(options.true)]
        for bound in (False, True):
            clock, processor = time.perf_counter(), time.process_time()
            episodes_of(instances, bound=bound)
            report(
                f"true episode, s per draw{' with its bound' if bound else ''}",
                wall=(time.perf_counter() - clock) / options.true,
                cpu=(time.process_time() - processor) / options.true,
            )
    values, _ = lookahead_of(base, warm_steps=8)
    for batch in (int(part) for part in options.batches.split(",")):
        index = torch.arange(batch) % drawn
        for name, figures in speeds(base.select(index), values.select(index), options.repeats):
            report(f"{name}, batch {batch}", **figures)


def speeds(
    draws: Episodes, values: Lookahead, repeats: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield what was measured on these draws, and its figures."""
    steps = draws.draws * draws.slots
    games: dict[str, Callable[[], Any]] = {
        "lru, at once": lambda: roll(draws, Replacement(), in_turn=False),
        "lru, in turn": lambda: roll(draws, Replacement()),
        "rolling, at once": lambda: roll(draws, Rolling(), in_turn=False),
        "rolling, in turn, 1 round": lambda: roll(draws, Rolling()),
        "rolling, in turn, 3 rounds": lambda: roll(draws, Rolling(), rounds=3),
        "rolling, jointly": lambda: roll(draws, Rolling(), joint="batched"),
        "mpc by looked-up values, in turn": lambda: roll(draws, Planned(values)),
    }
    if draws.draws <= 32:
        games["mpc anew, 8 warm steps"] = lambda: lookahead_of(draws, warm_steps=8)
    for name, play in games.items():
        wall, cpu = timed(play, repeats)
        yield f"{name}, slot-steps/s", {"wall": steps / wall, "cpu": steps / cpu}
    for name, in_turn in (("at once", False), ("in turn", True)):
        wall, cpu = timed(partial(described, draws, values, in_turn), repeats)
        yield f"features of a slot, {name}, ms", {"wall": 1e3 * wall, "cpu": 1e3 * cpu}


if __name__ == "__main__":
    main()
