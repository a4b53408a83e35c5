"""Quality and speed of the multicast kernel, against its certified bounds and against CVXPY.

    python3 benchmarks/beamforming.py --nodes 4 --antennas 4 --users 8 --error 0.1 --channel umi \
        --batch 1024 --json
    python3 benchmarks/beamforming.py --grid --batch 128 -o grid.jsonl    # the tables of the docs
    python3 benchmarks/beamforming.py --partial-power --batch 100    # beams at partial power
    python3 benchmarks/beamforming.py --proven --batch 12    # beams proven by trees, three seeds
    python3 benchmarks/beamforming.py --growth    # time and memory against size

One process, one thread, as in a parallel runner. Times are the least of several repetitions. The
reference (SDR with randomisation, then SCA from its beam, both by CVXPY with Clarabel) runs on the
first `--references` problems of the same batch, in the same run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch

from finecast.problem.channel import draw_channels
from finecast.problem.network import dbm_to_w, drop_users, hexagonal_positions, thermal_noise_w
from finecast.solvers.beamforming.arguments.messages import KnownBeams, TreeOptions, prove_beams
from finecast.solvers.beamforming.kernel import cones, multicast
from finecast.solvers.beamforming.kernel.cones import ConeSteps
from finecast.solvers.beamforming.kernel.multicast import MulticastOptions, certify, solve_multicast
from finecast.solvers.beamforming.sca import solve_sca
from finecast.solvers.beamforming.sdr import solve_relaxation, solve_sdr
from finecast.solvers.beamforming.worst_case import normal_form
from finecast.solvers.solve import versions

SIZES = ((2, 2), (4, 4), (6, 2), (6, 8))
"""Nodes and antennas of the grid."""

GRID = {
    "users": (2, 4, 8, 16),
    "error": (0.0, 0.05, 0.1, 0.2),
    "channel": ("umi", "iid"),
}
FEW_DIMENSIONS = (
    ("iid", 4, 4, 1, 0.0),
    ("iid", 6, 3, 1, 0.0),
    ("iid", 8, 4, 1, 0.0),
    ("iid", 8, 4, 1, 0.02),
    ("rank one", 6, 4, 2, 0.0),
    ("rank one", 12, 4, 4, 0.0),
    ("iid", 16, 2, 2, 0.0),
)
"""Channel, users, nodes, antennas and error of the classes where partial power matters."""

GROWTH = (
    *itertools.product((64, 1024), (4, 8, 16), ((2, 2), (4, 4), (6, 8))),
    *itertools.product((8192,), (8,), ((2, 2), (4, 4), (6, 8))),
)
"""Batch, users, and nodes with antennas of the table of time and memory."""

PROVEN = (
    ("iid", 8, 4, 4),
    ("iid", 8, 2, 2),
    ("iid", 8, 4, 1),
    ("rank one", 8, 4, 1),
    ("rank one", 8, 4, 2),
)
"""Channel, users, nodes and antennas of the classes whose beams are proven by trees."""

PROVEN_ERRORS = (0.0, 0.1)
"""Errors of these classes, shares of each node's channel norm."""

PROVEN_SEEDS = 3
"""Batches of each class, by seeds in a row."""

SITE_DISTANCE_M = 200.0
"""Distance between neighbouring nodes, m."""

POWER_DBM = 30.0
"""Transmit power of every node, dBm."""

BANDWIDTH_HZ = 100e6
"""Bandwidth of the downlink, Hz."""

NOISE_FIGURE_DB = 9.0
"""Noise figure of every user, dB."""

CARRIER_GHZ = 3.5
"""Carrier frequency, GHz."""

IID_SNR_DB = 10.0
"""Mean SNR of one antenna at full power in the equal-gain class."""


def draw(
    channel: str, batch: int, users: int, nodes: int, antennas: int, error: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return normalised channels (B, K, N, A), error radii (B, K, N) and powers (N,)."""
    rng = np.random.default_rng(seed)
    position = hexagonal_positions(nodes, SITE_DISTANCE_M)
    noise = thermal_noise_w(BANDWIDTH_HZ, NOISE_FIGURE_DB)
    power = np.full(nodes, dbm_to_w(POWER_DBM))
    radius = SITE_DISTANCE_M / np.sqrt(3)
    estimates = []
    for _ in range(batch):
        drawn = draw_channels(
            position,
            drop_users(rng, position, users, cell_radius_m=radius, min_distance_m=10.0),
            large_scale_rng=rng,
            fading_rng=rng,
            error_rng=rng,
            slots=1,
            antennas=antennas,
            environment=channel,
            carrier_ghz=CARRIER_GHZ,
            gain_db=IID_SNR_DB + 10 * np.log10(noise / power[0]),
        )
        estimates.append(drawn.estimate[0])
    normalised = np.array(estimates) / np.sqrt(noise)
    return normalised, error * np.linalg.norm(normalised, axis=3), power


def draw_few_dimensions(
    channel: str, batch: int, users: int, nodes: int, antennas: int, seed: int
) -> np.ndarray:
    """Return Rayleigh channels (B, K, N, A); of rank one, all users share a node's direction."""
    rng = np.random.default_rng(seed)

    def rayleigh(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)

    amplitude = 10 ** (IID_SNR_DB / 20)
    if channel == "iid":
        return amplitude * rayleigh(batch, users, nodes, antennas)
    direction = rayleigh(batch, 1, nodes, antennas)
    direction *= np.sqrt(antennas) / np.linalg.norm(direction, axis=-1, keepdims=True)
    return amplitude * direction * rayleigh(batch, users, nodes, 1)


def best_of_many(
    g: np.ndarray, eps: np.ndarray, known: np.ndarray, starts: int, seed: int
) -> float:
    """Return the best SNR of second-order cone steps from a known beam and from random beams."""
    scale = np.linalg.norm(g, axis=-1).sum(1).min()
    steps = ConeSteps(g / scale, eps / scale)
    rng = np.random.default_rng(seed)
    shape = (starts, *known.shape)
    beams = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    beams /= np.linalg.norm(beams, axis=-1, keepdims=True)
    signals = np.einsum("kna,sna->sk", g.conj(), np.concatenate([known[None], beams]))
    return float(max(scale * steps.climb(y / np.abs(y), 1e-4)[1] for y in signals)) ** 2


def measure_partial_power(
    channel: str, users: int, nodes: int, antennas: int, error: float, batch: int, seed: int
) -> dict[str, Any]:
    """Compare the kernel without and with its search at partial power, by many random starts."""
    g = draw_few_dimensions(channel, batch, users, nodes, antennas, seed)
    eps = error * np.linalg.norm(g, axis=-1)
    options = MulticastOptions(tolerance=1e-3, boxes=16)
    row: dict[str, Any] = {
        "channel": channel,
        "users": users,
        "nodes": nodes,
        "antennas": antennas,
        "error": error,
        "batch": batch,
    }
    answers = {}
    for name, switch in (("without", lambda _: False), ("with", cones.crowded)):
        with patch.object(multicast, "crowded", switch):
            began = time.process_time()
            answers[name] = solve_multicast(g, eps, np.ones(nodes), options)
            row[f"{name}_ms"] = 1e3 * (time.process_time() - began) / batch
    found = answers["with"]
    unproven = np.flatnonzero(answers["without"].bound > 1.001 * answers["without"].snr)
    best = np.asarray(found.snr).copy()
    for b in unproven:
        best[b] = max(best[b], best_of_many(g[b], eps[b], found.beamformer[b], 64, seed + 1))
    row["unproven"] = len(unproven) / batch
    for name, answer in answers.items():
        ratio = best / answer.snr
        row[f"{name}_better_exists"] = float((ratio > 1.01).mean())
        row[f"{name}_largest"] = float(ratio.max())
    return row


def measure_proven(
    channel: str, users: int, nodes: int, antennas: int, error: float, batch: int, seed: int
) -> dict[str, Any]:
    """Compare the kernel's beams and bounds with those of trees, over several seeds."""
    masks = {"node_mask": np.ones((batch, nodes), bool), "user_mask": np.ones((batch, users), bool)}
    before, after, better, boxes = [], [], [], []
    seconds = {"kernel": [], "tree": []}
    for own in range(seed, seed + PROVEN_SEEDS):
        g = draw_few_dimensions(channel, batch, users, nodes, antennas, own)
        eps = error * np.linalg.norm(g, axis=-1)
        began = time.process_time()
        found = solve_multicast(g, eps, np.ones(nodes), MulticastOptions(tolerance=1e-3, boxes=16))
        seconds["kernel"].append((time.process_time() - began) / batch)
        known = KnownBeams(found.beamformer, found.snr, found.bound)
        before.append(efficiency(known.snr) / efficiency(known.bound))
        for b in range(batch):
            began = time.process_time()
            one = KnownBeams(*(x[b : b + 1] for x in vars(known).values()))
            own_masks = {name: mask[:1] for name, mask in masks.items()}
            proven, examined = prove_beams(
                g[b : b + 1], eps[b : b + 1], np.ones(nodes), **own_masks, known=one,
                options=TreeOptions(),
            )  # fmt: skip
            seconds["tree"].append(time.process_time() - began)
            after.append(float((efficiency(proven.snr) / efficiency(proven.bound))[0]))
            better.append(float((efficiency(proven.snr) / efficiency(one.snr))[0]))
            boxes.append(int(examined[0]))
    return {
        "channel": channel,
        "users": users,
        "nodes": nodes,
        "antennas": antennas,
        "error": error,
        "problems": batch * PROVEN_SEEDS,
        "kernel_over_bound": spread_of(np.concatenate(before), (50, 5, 0)),
        "proven_over_bound": spread_of(np.array(after), (50, 5, 0)),
        "largest_gain_of_rate": max(better) - 1,
        "boxes": spread_of(np.array(boxes), (50, 90, 100)),
        "kernel_s": float(np.mean(seconds["kernel"])),
        "tree_s": spread_of(np.array(seconds["tree"]), (50, 90, 100)),
        "tree_mean_s": float(np.mean(seconds["tree"])),
    }


def spread_of(values: np.ndarray, percentiles: tuple[int, ...]) -> list[float]:
    """Return percentiles of some values."""
    return [float(np.percentile(values, each)) for each in percentiles]


def measure_growth(batch: int, users: int, size: tuple[int, int]) -> dict[str, Any]:
    """Measure time a problem (ms) and the growth of the peak of memory (MiB) over a batch of 8.

    It is for a process of its own, as a peak never falls.
    """
    torch.set_num_threads(1)
    g, eps, power = draw("umi", batch, users, *size, 0.1, 0)
    quick = MulticastOptions(starts=4)
    solve_multicast(g[:8], eps[:8], power, quick)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = least_time(lambda: solve_multicast(g, eps, power, quick), 3)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "batch": batch,
        "users": users,
        "nodes": size[0],
        "antennas": size[1],
        "ms": 1e3 * seconds / batch,
        "memory_mib": grown / 1024,
    }


def efficiency(snr: np.ndarray) -> np.ndarray:
    """Return log2(1 + snr), bit/s/Hz, without a cap."""
    return np.log2(1.0 + np.asarray(snr))


def ratios(name: str, part: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """Return median and 5th percentile of the ratio of two spectral efficiencies."""
    served = np.asarray(whole) > 0
    ratio = efficiency(part[served]) / efficiency(whole[served])
    if not len(ratio):
        return {f"{name}_median": float("nan"), f"{name}_p5": float("nan")}
    return {
        f"{name}_median": float(np.median(ratio)),
        f"{name}_p5": float(np.percentile(ratio, 5)),
    }


def least_time(action: Callable[[], Any], repetitions: int) -> float:
    """Return the least wall-clock seconds of several repetitions."""
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


@contextmanager
def solver_clock() -> Iterator[list[float]]:
    """Collect the seconds that Clarabel itself takes, modelling excluded."""
    from cvxpy.reductions.solvers.conic_solvers.clarabel_conif import CLARABEL

    inner = CLARABEL.solve_via_data
    spent: list[float] = []

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return inner(*arguments, **options)
        finally:
            spent.append(time.perf_counter() - began)

    CLARABEL.solve_via_data = timed
    try:
        yield spent
    finally:
        CLARABEL.solve_via_data = inner


def measure(
    *,
    nodes: int,
    antennas: int,
    users: int,
    error: float,
    channel: str,
    batch: int,
    starts: int,
    references: int,
    tolerance: float,
    boxes: int,
    repetitions: int,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Measure one class of problems.

    `single_problem_ms`: median over problems solved one at a time.
    `rate_ratio`: achieved over certified bound, bound tightened to `tolerance`; `free_`: with the
    free certificate. `bound_over_sdp`: certified relaxation bound over the value of the same
    relaxation by CVXPY. `over_reference`: achieved over the reference's best.
    """
    g, eps, power = draw(channel, batch, users, nodes, antennas, error, seed)
    quick = MulticastOptions(starts=starts, seed=seed, device=device)
    thorough = replace(quick, tolerance=tolerance, boxes=boxes)
    free = solve_multicast(g, eps, power, quick)
    free_s = least_time(lambda: solve_multicast(g, eps, power, quick), repetitions)
    began = time.perf_counter()
    tight = solve_multicast(g, eps, power, thorough)
    tight_s = time.perf_counter() - began
    one_s = np.median(
        [
            least_time(lambda i=i: solve_multicast(g[i : i + 1], eps[i : i + 1], power, quick), 20)
            for i in range(min(batch, 15))
        ]
    )
    row: dict[str, Any] = {
        "channel": channel,
        "nodes": nodes,
        "antennas": antennas,
        "users": users,
        "error": error,
        "batch": batch,
        "starts": starts,
        **ratios("rate_ratio", tight.snr, tight.bound),
        **ratios("free_rate_ratio", free.snr, free.bound),
        "problems_per_s": batch / free_s,
        "problems_per_s_tight": batch / tight_s,
        "single_problem_ms": 1e3 * float(one_s),
    }
    if references:
        few = slice(0, min(references, batch))
        row |= compare(g[few], eps[few], power, tight.snr[few], free_s / batch, tolerance, seed)
    return row


def compare(
    g: np.ndarray,
    eps: np.ndarray,
    power: np.ndarray,
    reached: np.ndarray,
    kernel_s: float,
    tolerance: float,
    seed: int,
) -> dict[str, Any]:
    """Compare with the reference's beams and times, and with the relaxation's value."""
    solve_sdr(g[0], eps[0], power)  # compiles the programmes of this shape, outside the clock
    solve_sca(g[0], eps[0], power)
    best = []
    began = time.perf_counter()
    with solver_clock() as spent:
        for channel, error in zip(g, eps, strict=True):
            relaxed = solve_sdr(channel, error, power, seed=seed)
            polished = solve_sca(channel, error, power, start=relaxed.beamformer, seed=seed)
            best.append(max(relaxed.snr, polished.snr))
    wall_s = time.perf_counter() - began
    tight = MulticastOptions(tolerance=tolerance, seed=seed)
    certified = certify(g, eps, power, tight).relaxation.numpy()
    values = np.array([relaxation_value(h, e, power) for h, e in zip(g, eps, strict=True)])
    over = certified[values > 0] / values[values > 0]
    return {
        "references": len(g),
        **ratios("over_reference", reached, np.array(best)),
        "bound_over_sdp_max": float(over.max(initial=0.0)),
        "bound_over_sdp_min": float(over.min(initial=np.inf)),
        "reference_ms": 1e3 * wall_s / len(g),
        "speedup_wall": wall_s / len(g) / kernel_s,
        "speedup_solver_only": sum(spent) / len(g) / kernel_s,
    }


def relaxation_value(g: np.ndarray, eps: np.ndarray, power: np.ndarray) -> float:
    """Return the SNR of the relaxation's optimum by CVXPY, from its primal point (never above).

    The matrix is made positive semidefinite and within power, and its value recomputed, so that
    a loose end of the solver can only lower it. 0 where the solver has no point.
    """
    form = normal_form(g, eps, power)
    relaxation = solve_relaxation(form)
    if relaxation is None:
        return 0.0
    values, vectors = np.linalg.eigh(relaxation.covariance)
    covariance = (vectors * np.maximum(values, 0)) @ vectors.conj().T
    users, useful, antennas = form.channel.shape
    node_power = np.real(np.diag(covariance)).reshape(useful, antennas).sum(axis=1)
    shrink = max(1.0, float(node_power.max()))
    rows = form.channel.reshape(users, -1)
    gains = np.real(np.einsum("ki,ij,kj->k", rows, covariance / shrink, rows.conj()))
    other = np.real(np.einsum("ki,ij,kj->k", rows.conj(), covariance / shrink, rows))
    spread = form.error @ (node_power / shrink)
    levels = [np.sqrt(np.maximum(each, 0)) - spread for each in (gains, other)]
    return float(max(0.0, *(level.min() for level in levels)) ** 2)


def main() -> None:
    """Run one class, or the grid."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--antennas", type=int, default=4)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--error", type=float, default=0.0)
    parser.add_argument("--channel", choices=("umi", "uma", "iid"), default="umi")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--references", type=int, default=8, help="problems given to CVXPY")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of the tightened bound")
    parser.add_argument("--boxes", type=int, default=64, help="boxes of the power branching")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--grid", action="store_true", help="all classes of the documentation")
    parser.add_argument(
        "--partial-power", action="store_true", help="classes where partial power matters"
    )
    parser.add_argument(
        "--proven", action="store_true", help="classes whose beams are proven by trees"
    )
    parser.add_argument("--growth", action="store_true", help="time and memory against size")
    parser.add_argument("-o", "--output", help="file for the grid's rows (JSON lines, resumable)")
    parser.add_argument("--json", action="store_true")
    options = vars(parser.parse_args())
    torch.set_num_threads(1)
    as_json, grid, output = (options.pop(name) for name in ("json", "grid", "output"))
    partial_power, proven = options.pop("partial_power"), options.pop("proven")
    growth = options.pop("growth")
    made_with = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "versions": versions(),
    }
    if partial_power:
        for few in FEW_DIMENSIONS:
            row = measure_partial_power(*few, options["batch"], options["seed"])
            print(json.dumps({**row, **made_with}), flush=True)
        return
    if proven:
        for few, error in itertools.product(PROVEN, PROVEN_ERRORS):
            row = measure_proven(*few, error, options["batch"], options["seed"])
            print(json.dumps({**row, **made_with}), flush=True)
        return
    if growth:
        spawn = get_context("spawn")
        for batch, users, size in GROWTH:
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                row = process.submit(measure_growth, batch, users, size).result()
            print(json.dumps({**row, **made_with}), flush=True)
        return
    if grid:
        run_grid(options, output, made_with)
        return
    row = {**measure(**options), **made_with}
    if as_json:
        print(json.dumps(row, indent=2))
    else:
        print("\n".join(f"{key:24} {value}" for key, value in row.items()))


def run_grid(options: dict[str, Any], output: str | None, made_with: dict[str, Any]) -> None:
    """Measure every class of the grid that the output file lacks, without the reference."""
    target = Path(output) if output else None
    lines = target.read_text().splitlines() if target and target.exists() else []
    rows = [json.loads(line) for line in lines]
    keys = ("nodes", "antennas", *GRID)
    done = [{key: row[key] for key in keys} for row in rows]
    for size, *values in itertools.product(SIZES, *GRID.values()):
        chosen: dict[str, Any] = dict(zip(keys, (*size, *values), strict=True))
        if chosen in done:
            continue
        chosen["references"] = 0
        if chosen["users"] == 16:
            chosen["starts"] = 16
        line = json.dumps({**measure(**{**options, **chosen}), **made_with})
        if target:
            with target.open("a") as stream:
                stream.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
