"""Spatial delivery against sequential CoMP broadcasts, its bounds, and other ways to share the air.

    python3 benchmarks/spatial --nodes 4 --antennas 4 --users 12 --messages 8 --json
    python3 benchmarks/spatial --grid -o spatial.jsonl      # the tables of docs/benchmarks
    python3 benchmarks/spatial --rebound spatial.jsonl      # the bounds again, by today's code
    python3 benchmarks/spatial --table spatial.jsonl        # its rows, as Markdown

Ratios are the broadcast time over the time of the same messages one after another from all nodes.
They are means over draws, after 0.5, 1 and 2 seconds and at the end. Seconds are processor time of
one thread, so that other work on the machine does not count. The certified bound is that of the
same messages. `draws.py` says what is drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from draws import BANDWIDTH_HZ, problem_of
from peers import PEERS, beams_alone

from finecast.solvers.deadline import Deadline
from finecast.solvers.solve import versions
from finecast.solvers.spatial.bounds import broadcast_bounds, downlink
from finecast.solvers.spatial.modes import Modes, least_time
from finecast.solvers.spatial.multigroup import MultiGroup

SIZES = ((4, 12, 6), (4, 12, 8), (6, 24, 13), (6, 24, 20))
"""Nodes, users, messages."""

GRID = (
    *(("families", n, 4, k, g, 0.0) for n, k, g in SIZES),
    *(("families", n, a, k, g, 0.0) for n, k, g in SIZES for a in (2, 8)),
    *(("families", n, 4, k, g, e) for n, k, g in (SIZES[1], SIZES[3]) for e in (0.05, 0.1)),
    *(("random", n, 4, k, g, 0.0) for n, k, g in SIZES),
    *(("families", n, a, k, g, e) for n, k, g in SIZES for e in (0.05, 0.1) for a in (4, 2, 8)),
)
"""The classes of the documentation; the most important ones come first."""

PEERS_AT = {"groups": "families", "antennas": 4, "error": 0.0}
"""The classes of the grid on which the peers are measured."""

MOMENTS = (0.5, 1.0, 2.0)
"""Processor seconds after which the ratio is noted."""

KEYS = ("groups", "nodes", "antennas", "users", "messages", "error")


def bound_of(problem: MultiGroup, bits: np.ndarray) -> float:
    """Return the certified lower bound on the broadcast time, s."""
    nats = bits * (np.log(2.0) / BANDWIDTH_HZ)
    messages = downlink(problem.channel, problem.error, problem.power, problem.users, nats)
    return float(broadcast_bounds([messages])[0])


def timed(
    problem: MultiGroup, bits: np.ndarray, alone: np.ndarray, time_limit: float, seed: int
) -> tuple[Modes, list[tuple[float, float]]]:
    """Return the modes, and processor seconds with the best ratio at every round."""
    began = time.process_time()
    rounds: list[tuple[float, float]] = []
    modes = least_time(
        problem, bits, BANDWIDTH_HZ, alone, deadline=Deadline.after(time_limit), seed=seed,
        callback=lambda total: rounds.append((time.process_time() - began, total)),
    )  # fmt: skip
    return modes, [(when, total / modes.sequential) for when, total in rounds]


def measure(
    *,
    groups: str,
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
    drawn = (groups, nodes, antennas, users, messages, error)
    ratios, on_air, spent, totals, bounds, bound_s = [], [], [], [], [], []
    others: dict[str, list[float]] = {name: [] for name in PEERS}
    for d in range(draws):
        problem, bits = problem_of(*drawn, seed + d)
        modes, rounds = timed(problem, bits, beams_alone(problem), time_limit, seed + d)
        at = [min([1.0, *(r for s, r in rounds if s <= moment)]) for moment in MOMENTS]
        ratios.append([*at, modes.total / modes.sequential])
        on_air.append(float(modes.duration @ (modes.rate > 0).sum(axis=1)) / modes.total)
        spent.append(rounds[-1][0])
        totals.append(modes.total)
        began = time.process_time()
        bounds.append(bound_of(problem, bits))
        bound_s.append(time.process_time() - began)
        if d < peers:
            for name, peer in PEERS.items():
                others[name].append(peer(problem, bits, seed + d) / modes.sequential)
    table = np.array(ratios)
    return {
        **dict(zip(KEYS, drawn, strict=True)),
        "draws": draws,
        "seed": seed,
        **{f"ratio_{m}s": float(table[:, c].mean()) for c, m in enumerate(MOMENTS)},
        "ratio_end": float(table[:, -1].mean()),
        "ratio_end_least": float(table[:, -1].min()),
        "ratio_end_most": float(table[:, -1].max()),
        "seconds_to_end": float(np.mean(spent)),
        "on_the_air": float(np.mean(on_air)),
        **over_bound(totals, bounds),
        "bound_seconds": float(np.mean(bound_s)),
        "peer_draws": peers,
        "ours": float(table[:peers, -1].mean()) if peers else None,
        **{name: float(np.mean(values)) for name, values in others.items() if values},
        "totals": totals,
        "bounds": bounds,
    }


def over_bound(totals: list[float], bounds: list[float]) -> dict[str, float]:
    """Return mean and worst of best time over certified bound."""
    ratio = np.array(totals) / np.array(bounds)
    return {"over_bound": float(ratio.mean()), "over_bound_most": float(ratio.max())}


def rebound(path: str) -> None:
    """Bound the draws of a file again; the times found stay."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for row in rows:
        drawn, began = [row[key] for key in KEYS], time.process_time()
        bounds = [bound_of(*problem_of(*drawn, row["seed"] + d)) for d in range(row["draws"])]
        row["bound_seconds"] = (time.process_time() - began) / len(bounds)
        row |= {"bounds": bounds, **over_bound(row["totals"], bounds)}
        print(*drawn, f"{row['over_bound']:.3f}", flush=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_markdown(path: str) -> str:
    """Return the rows of a file as two tables: against sequential and the bound, and the peers."""
    place = {
        "groups": "groups", "nodes": "N", "antennas": "A", "users": "K", "messages": "G",
        "error": "error",
    }  # fmt: skip
    own = {
        "ratio_0.5s": "0.5 s", "ratio_1.0s": "1 s", "ratio_2.0s": "2 s", "ratio_end": "end",
        "ratio_end_least": "least", "ratio_end_most": "most", "seconds_to_end": "s to end",
        "on_the_air": "on the air", "over_bound": "/ bound", "over_bound_most": "worst",
        "draws": "draws",
    }  # fmt: skip
    others = {
        "peer_draws": "draws",
        "ours": "ours",
        **{name: name.replace("_", " ") for name in PEERS},
    }
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    lines = []
    for columns, chosen in (
        (place | own, rows),
        (place | others, [row for row in rows if row["peer_draws"]]),
    ):
        lines += ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(_cell(row[key]) for key in columns) + " |" for row in chosen]
        lines.append("")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run one class, or the grid."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--groups", choices=("families", "random"), default="families")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--antennas", type=int, default=4)
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--messages", type=int, default=8)
    parser.add_argument("--error", type=float, default=0.0)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--peers", type=int, default=2, help="draws given to the peers as well")
    parser.add_argument("--time-limit", type=float, default=20.0, help="s of each draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", action="store_true", help="all classes of the documentation")
    parser.add_argument("-o", "--output", help="file for the grid's rows (JSON lines, resumable)")
    parser.add_argument("--table", help="print the rows of such a file as Markdown, and stop")
    parser.add_argument("--rebound", help="bound the draws of such a file again, and stop")
    parser.add_argument("--json", action="store_true")
    options = vars(parser.parse_args())
    as_json, grid, output, table, again = (
        options.pop(k) for k in ("json", "grid", "output", "table", "rebound")
    )
    torch.set_num_threads(1)
    if table:
        print(as_markdown(table))
        return
    if again:
        rebound(again)
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
    for values in dict.fromkeys(GRID):
        if values in done:
            continue
        chosen = {**options, **dict(zip(KEYS, values, strict=True))}
        if any(chosen[key] != value for key, value in PEERS_AT.items()):
            chosen["peers"] = 0
        line = json.dumps({**measure(**chosen), **made_with})
        if target:
            with target.open("a") as stream:
                stream.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
