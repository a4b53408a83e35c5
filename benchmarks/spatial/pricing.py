"""The search for modes against successive convex approximation (SCA) by CVXPY, on small problems.

    python3 benchmarks/spatial/pricing.py --json

A mode is worth sum_i R_i / R_i^alone: how many messages it carries at once, each counted by its
rate alone on the air. Per problem the best of the same six random starts: our search in one batch
(12 steps of WMMSE, 50 of Adam), WMMSE alone (200 steps), and SCA from every start. Draws are those
of `benchmarks/spatial`, groups `random`, no errors. Seconds are of the processor, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import cvxpy as cp
import numpy as np
import torch
from draws import problem_of
from peers import beams_alone

from finecast.solvers.solve import versions
from finecast.solvers.spatial.multigroup import MultiGroup, guaranteed_rates
from finecast.solvers.spatial.pricing import price_modes

SIZES = ((2, 2, 4, 3, 8), (4, 2, 8, 5, 5), (4, 4, 12, 8, 2))
"""Nodes, antennas, users, messages, draws: SCA takes 20 s for one of the last."""

STARTS = 6
"""Random starts of each problem."""

CONVEX_STEPS = 25
"""Most convex programmes from one start."""

WORTH_ANOTHER = 1e-4
"""Least relative gain of a convex programme after which another one follows."""


def convex_steps(problem: MultiGroup, price: np.ndarray, beam: np.ndarray) -> float:
    """Return the price of the mode that SCA ends with from beams (G, N, A).

        maximise sum_i pi_i log(1 + gamma_i)
        s.t. 2 Re(y0* y) / beta0 - |y0|^2 beta / beta0^2 >= gamma_i,  y = g_k^H w_i, k in U_i,
             beta >= 1 + sum_{l != i} |g_k^H w_l|^2,  sum_i norm(w_in)^2 <= P_n,

    the tangent of |y|^2 / beta at the last iterate (y0, beta0), which lies below it (Tran, Hanif,
    Juntti, IEEE Signal Process. Lett. 21 (2014), for several groups with interference).
    """
    messages, nodes, antennas = beam.shape
    users = len(problem.channel)
    rows = problem.channel.conj().reshape(users, -1)
    w = cp.Variable((nodes * antennas, messages), complex=True)
    gamma = cp.Variable(messages, nonneg=True)
    heard = [(i, k) for i in range(messages) for k in np.flatnonzero(problem.users[i])]
    beta = cp.Variable(len(heard))
    slope = cp.Parameter(len(heard), complex=True)
    level = cp.Parameter(len(heard), nonneg=True)
    rules = [
        cp.sum_squares(w[n * antennas : (n + 1) * antennas]) <= problem.power[n]
        for n in range(nodes)
    ]
    for c, (i, k) in enumerate(heard):
        others = [m for m in range(messages) if m != i]
        signal = rows[k] @ w
        rules.append(1 + cp.sum_squares(signal[others]) <= beta[c])
        rules.append(cp.real(cp.conj(slope[c]) * signal[i]) - level[c] * beta[c] >= gamma[i])
    programme = cp.Problem(cp.Maximize(price @ cp.log1p(gamma)), rules)

    def value(beam: np.ndarray) -> float:
        return float(guaranteed_rates(problem, beam[None])[0] @ price)

    best = value(beam)
    for _ in range(CONVEX_STEPS):
        received = np.abs(rows @ beam.reshape(messages, -1).T) ** 2
        own = np.array([rows[k] @ beam[i].ravel() for i, k in heard])
        noise = np.array([1 + received[k].sum() - received[k, i] for i, k in heard])
        slope.value, level.value = 2 * own / noise, np.abs(own) ** 2 / noise**2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no status is believed: the mode is judged
            try:
                programme.solve(solver=cp.CLARABEL)
            except cp.SolverError:
                break
        if w.value is None:
            break
        found = w.value.T.reshape(beam.shape)
        sent = (np.abs(found) ** 2).sum(axis=(0, 2))
        found = found * np.sqrt(np.minimum(1.0, problem.power / np.maximum(sent, 1e-300)))[:, None]
        reached = value(found)
        if reached <= best * (1 + WORTH_ANOTHER):
            best = max(best, reached)
            break
        best, beam = reached, found
    return best


def seeded(seed: int) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def measure(
    nodes: int, antennas: int, users: int, messages: int, draws: int, seed: int
) -> dict[str, Any]:
    """Measure one size: mean worth of the best mode, and seconds for it."""
    worth: dict[str, list[float]] = {"ours": [], "wmmse_alone": [], "sca": []}
    spent: dict[str, list[float]] = {name: [] for name in worth}
    for d in range(draws):
        problem, _ = problem_of("random", nodes, antennas, users, messages, 0.0, seed + d)
        solo = np.eye(messages)[:, :, None, None] * beams_alone(problem)
        price = 1.0 / guaranteed_rates(problem, solo).diagonal()

        starts = partial(price_modes, problem, price, fresh=STARTS)
        for name, steps, wmmse in (("ours", 50, 12), ("wmmse_alone", 0, 200)):
            began = time.process_time()
            _, rate = starts(steps=steps, wmmse=wmmse, generator=seeded(seed + d))
            worth[name].append(float((rate @ price).max()))
            spent[name].append(time.process_time() - began)
        began = time.process_time()
        beams, _ = starts(steps=0, wmmse=0, generator=seeded(seed + d))
        worth["sca"].append(max(convex_steps(problem, price, beam) for beam in beams))
        spent["sca"].append(time.process_time() - began)
    return {
        "nodes": nodes,
        "antennas": antennas,
        "users": users,
        "messages": messages,
        "draws": draws,
        "seed": seed,
        **{name: float(np.mean(values)) for name, values in worth.items()},
        **{f"{name}_seconds": float(np.mean(values)) for name, values in spent.items()},
    }


def main() -> None:
    """Print a row per size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size in SIZES:
        row = {**measure(*size, options.seed), "versions": versions()}
        print(json.dumps(row) if options.json else row, flush=True)


if __name__ == "__main__":
    main()
