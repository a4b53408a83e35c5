"""A placement heuristic of your own: its gap, and `greedy` beside it, over five instances.

Run: python3 examples/own_heuristic.py
"""

from __future__ import annotations

import numpy as np

import finecast


def most_shared(problem, library):
    """Cache the blocks that most models share and most slots need, by worth per byte."""
    needed = (problem.group >= 0).sum(axis=0)
    order = np.argsort(-needed * library.block_models / problem.block_size, kind="stable")
    held = np.zeros((problem.nodes, problem.blocks), dtype=bool)
    held[:, order] = np.cumsum(problem.block_size[order]) <= problem.storage[:, None]
    return held


for seed in range(5):
    instance = finecast.read_scenario("vision-small").generate(seed)
    own, greedy = finecast.solve(instance, most_shared), finecast.solve(instance, "greedy")
    print(f"seed {seed}: own {own.delay:.2f} s, at most {own.gap:.1%} above the optimum; ", end="")
    print(f"greedy {greedy.delay:.2f} s, at most {greedy.gap:.1%}")
