"""Spatial delivery against sequential CoMP broadcasting, and against other ways to share the air.

    python benchmarks/spatial.py --nodes 4 --antennas 4 --users 12 --messages 8 --json
    python benchmarks/spatial.py --grid -o spatial.jsonl      # the table of docs/benchmarks
    python benchmarks/spatial.py --table spatial.jsonl        # rows of it, as Markdown

Ratios are broadcast time over the time of the same messages one after another from all nodes, mean
over draws, after 0.5, 1 and 2 seconds of one thread (processor time, so that other work on the
machine does not count) and at the end. Users ask for models of families: every family has a block
that all its models share and every model one of its own, so that messages are the distinct user
groups of two levels; the draw is repeated until there are as many as asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.beamforming import BANDWIDTH_HZ, draw
from solvers.beamforming.group_ascent import listened, value_and_gradient
from solvers.beamforming.group_pricing import price_modes
from solvers.beamforming.group_starts import combined, regularised_zero_forcing
from solvers.beamforming.methods import solve_messages
from solvers.beamforming.multigroup import MultiGroup, Scaled, full_power, guaranteed_rates, square
from solvers.solve import versions
from solvers.spatial import Modes, least_time

SIZES = ((4, 12, 6), (4, 12, 8), (6, 24, 13), (6, 24, 20))
"""Nodes, users, messages."""

GRID = (
    *((n, a, k, g, 0.0) for n, k, g in SIZES for a in (2, 4, 8)),
    *((n, 4, k, g, error) for n, k, g in (SIZES[1], SIZES[3]) for error in (0.05, 0.1)),
)
MOMENTS = (0.5, 1.0, 2.0)
MODELS_PER_FAMILY = 3
MEAN_BITS, SPREAD = 1e9, 0.8
KEYS = ("nodes", "antennas", "users", "messages", "error")


def user_groups(rng: np.random.Generator, users: int, messages: int) -> np.ndarray:
    """Return (messages, users) bool, the distinct user groups of families and of their models."""
    families = max(2, messages // MODELS_PER_FAMILY)
    for _ in range(100_000):
        family = rng.integers(families, size=users)
        model = family * MODELS_PER_FAMILY + rng.integers(MODELS_PER_FAMILY, size=users)
        groups = np.concatenate(
            [values[:, None] == np.unique(values) for values in (family, model)], 1
        )
        groups = np.unique(groups.T, axis=0)
        if len(groups) == messages:
            return groups
    raise ValueError(f"messages: {messages} of {users} users did not occur in 100000 draws")


def problem_of(
    nodes: int, antennas: int, users: int, messages: int, error: float, seed: int
) -> tuple[MultiGroup, np.ndarray]:
    """Return the messages, all of them from all nodes, and their bits."""
    channel, radius, power = draw("umi", 1, users, nodes, antennas, error, seed)
    rng = np.random.default_rng((seed, messages))
    listening = user_groups(rng, users, messages)
    everywhere = np.ones((messages, nodes), dtype=bool)
    bits = MEAN_BITS * rng.lognormal(0.0, SPREAD, messages)
    return MultiGroup(channel[0], radius[0], power, listening, everywhere), bits


def beams_alone(problem: MultiGroup) -> np.ndarray:
    """Return (G, N, A), the kernel's beam of every message alone on the air."""
    copies = (len(problem.users), *problem.channel.shape)
    return solve_messages(
        "multicast",
        np.broadcast_to(problem.channel, copies),
        np.broadcast_to(problem.error, copies[:-1]),
        problem.power,
        node_mask=problem.nodes,
        user_mask=problem.users,
    ).beamformer


def timed(
    problem: MultiGroup, bits: np.ndarray, alone: np.ndarray, time_limit: float, seed: int
) -> tuple[Modes, list[tuple[float, float]]]:
    """Return the modes, and processor seconds with the best ratio at every round."""
    began = time.process_time()
    rounds: list[tuple[float, float]] = []
    modes = least_time(
        problem, bits, BANDWIDTH_HZ, alone, time_limit=time_limit, seed=seed,
        callback=lambda total: rounds.append((time.process_time() - began, total)),
    )  # fmt: skip
    return modes, [(when, total / modes.sequential) for when, total in rounds]


def all_at_once(
    problem: MultiGroup, bits: np.ndarray, seed: int, starts: int = 4, steps: int = 400
) -> float:
    """Return the time with every message on the air all the time: max-min of rate over bits.

    Adam on the soft minimum over messages and users, whose sharpness grows.
    """
    generator = torch.Generator().manual_seed(seed)
    scaled = Scaled.of(problem, 1.0 / bits)
    towards = regularised_zero_forcing(scaled.channel, scaled.users, scaled.nodes)
    share = torch.from_numpy(bits / bits.mean()).float()
    best = np.inf
    for _ in range(starts):
        phase = torch.rand(scaled.users.shape, generator=generator) * (2 * torch.pi)
        beam = full_power(combined(scaled, towards, phase)[None])
        first, second = torch.zeros_like(beam), torch.zeros_like(beam.real)
        for t in range(steps):
            _, _, signal, _, interference = listened(scaled, beam)
            rate = torch.log1p(signal.square() / interference)
            least = torch.where(scaled.users, rate, torch.inf).amin(2)[0] / share
            best = min(best, float(1.0 / least.min().clamp(min=1e-9)))
            price = torch.softmax(-5.0 * 40.0 ** (t / steps) * least, 0) / share
            _, gradient = value_and_gradient(replace(scaled, price=price), beam, 20.0)
            first = 0.9 * first + 0.1 * gradient
            second = 0.99 * second + 0.01 * square(gradient)
            move = first / (1 - 0.9 ** (t + 1)) / ((second / (1 - 0.99 ** (t + 1))).sqrt() + 1e-12)
            beam = full_power(beam + 0.02 * 0.1 ** (t / steps) * move)
    return best * float(bits.mean()) * np.log(2.0) / BANDWIDTH_HZ


def fixed_modes(problem: MultiGroup, bits: np.ndarray, seed: int, count: int = 1000) -> float:
    """Return the least time over random modes of maximum ratio and zero-forcing beams alone."""
    from scipy.optimize import linprog

    generator = torch.Generator().manual_seed(seed)
    beams, _ = price_modes(problem, 1.0 / bits, fresh=count, steps=0, wmmse=0, generator=generator)
    beams = np.concatenate([beams, np.eye(len(bits))[:, :, None, None] * beams_alone(problem)])
    rate = guaranteed_rates(problem, beams) * BANDWIDTH_HZ / np.log(2.0)
    solved = linprog(np.ones(len(rate)), A_ub=-(rate / bits[None]).T, b_ub=-np.ones(len(bits)))
    return float(solved.fun)


def reuse_one(problem: MultiGroup, bits: np.ndarray, seed: int) -> float:
    """Return the time when every user is served by its strongest node alone, all cells at once."""
    strongest = np.linalg.norm(problem.channel, axis=2).argmax(axis=1)
    rows = [
        (i, n) for i, listening in enumerate(problem.users) for n in np.unique(strongest[listening])
    ]
    message, node = np.array(rows).T
    cells = replace(
        problem,
        users=problem.users[message] & (strongest == node[:, None]),
        nodes=np.arange(len(problem.power)) == node[:, None],
    )
    return least_time(
        cells, bits[message], BANDWIDTH_HZ, beams_alone(cells), time_limit=4.0, seed=seed
    ).total


def measure(
    *,
    nodes: int,
    antennas: int,
    users: int,
    messages: int,
    error: float,
    draws: int,
    peers: int,
    time_limit: float,
    seed: int,
) -> dict[str, Any]:
    """Measure one class; peers on its first few draws, as ratios to sequential too."""
    ratios, on_air, spent = [], [], []
    others: dict[str, list[float]] = {"all_at_once": [], "fixed_modes": [], "reuse_one": []}
    for d in range(draws):
        problem, bits = problem_of(nodes, antennas, users, messages, error, seed + d)
        modes, rounds = timed(problem, bits, beams_alone(problem), time_limit, seed + d)
        at = [min([1.0, *(r for s, r in rounds if s <= moment)]) for moment in MOMENTS]
        ratios.append([*at, modes.total / modes.sequential])
        on_air.append(float(modes.duration @ (modes.rate > 0).sum(axis=1)) / modes.total)
        spent.append(rounds[-1][0])
        if d < peers:
            for name, peer in (
                ("all_at_once", all_at_once),
                ("fixed_modes", fixed_modes),
                ("reuse_one", reuse_one),
            ):
                others[name].append(peer(problem, bits, seed + d) / modes.sequential)
    table = np.array(ratios)
    return {
        "nodes": nodes,
        "antennas": antennas,
        "users": users,
        "messages": messages,
        "error": error,
        "draws": draws,
        **{f"ratio_{m}s": float(table[:, c].mean()) for c, m in enumerate(MOMENTS)},
        "ratio_end": float(table[:, -1].mean()),
        "ratio_end_least": float(table[:, -1].min()),
        "ratio_end_most": float(table[:, -1].max()),
        "seconds_to_end": float(np.mean(spent)),
        "on_the_air": float(np.mean(on_air)),
        **{name: float(np.mean(values)) for name, values in others.items() if values},
    }


def as_markdown(path: str) -> str:
    """Return the rows of a file as a table."""
    columns = {
        "nodes": "N", "antennas": "A", "users": "K", "messages": "G", "error": "error",
        "ratio_0.5s": "0.5 s", "ratio_1.0s": "1 s", "ratio_2.0s": "2 s", "ratio_end": "end",
        "ratio_end_least": "least", "ratio_end_most": "most", "seconds_to_end": "s to end",
        "on_the_air": "on the air", "all_at_once": "all at once", "fixed_modes": "fixed modes",
        "reuse_one": "reuse one",
    }  # fmt: skip
    lines = ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|"]
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        cells = [
            "" if key not in row else f"{row[key]:.3f}" if "ratio" in key else f"{row[key]:.3g}"
            for key in columns
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run one class, or the grid."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--antennas", type=int, default=4)
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--messages", type=int, default=8)
    parser.add_argument("--error", type=float, default=0.0)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--peers", type=int, default=3, help="draws given to the peers as well")
    parser.add_argument("--time-limit", type=float, default=15.0, help="s of each draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", action="store_true", help="all classes of the documentation")
    parser.add_argument("-o", "--output", help="file for the grid's rows (JSON lines, resumable)")
    parser.add_argument("--table", help="print the rows of such a file as Markdown, and stop")
    parser.add_argument("--json", action="store_true")
    options = vars(parser.parse_args())
    as_json, grid, output, table = (options.pop(k) for k in ("json", "grid", "output", "table"))
    torch.set_num_threads(1)
    if table:
        print(as_markdown(table))
        return
    made_with = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "versions": versions(),
    }
    if not grid:
        row = {**measure(**options), **made_with}
        text = "\n".join(f"{key:24} {value}" for key, value in row.items())
        print(json.dumps(row, indent=2) if as_json else text)
        return
    target = Path(output) if output else None
    lines = target.read_text().splitlines() if target and target.exists() else []
    done = {tuple(json.loads(line)[key] for key in KEYS) for line in lines}
    for values in GRID:
        if values in done:
            continue
        chosen = {**options, **dict(zip(KEYS, values, strict=True))}
        line = json.dumps({**measure(**chosen), **made_with})
        if target:
            with target.open("a") as stream:
                stream.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
