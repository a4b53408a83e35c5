"""Model-predictive control: a Lagrangian dynamic programme over the expected slots to come.

In every slot, with prices lambda_{s,n} on the bytes that node n holds in the coming slots s, the
expected cost per byte of a block of one kind under its own best decisions is

    W_s(X) = lambda_s . X + P_s min over l of [tau_l(X) + b_s(Q_l(X)) + A_s(Q_l(X))]
                          + (1 - P_s) A_s(X)
    A_s(Q) = min over X within Q of W_{s+1}(X)

since it migrates only if somebody needs it, with probability P_s, and A = 0 after the horizon (P
and b from `expected.coming_tables`). A block that is cached at X now, in a slot whose requests are
known, pays min over l of f(X, l) + A(Q_l(X)). The prices rise where the expected bytes exceed the
storage (subgradient of the Lagrangian dual); storage in the coming slots holds in expectation only.
The decisions of this slot are those of the dynamic programme; what is kept is then chosen so that
this slot's storage holds exactly: all blocks and nodes at once (`joint_keep`), or with `keep =
"in-turn"` node by node, by what a copy saves per byte of its own storage.

Only the decisions of this slot are taken; the next slot solves anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.heuristics.expected import Expected, coming_tables
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.joint_keep import keep_jointly
from finecast.solvers.heuristics.rules import (
    KeepRule,
    best_senders,
    check_keep_rule,
    keep_by_cost,
    pull,
    sources,
)
from finecast.solvers.node_set_tables import members, node_sets
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.problem import PlacementProblem

STEPS = 40
"""Subgradient steps in every slot."""

ROUNDS = 3
"""Rounds in which the nodes decide what to keep, one after another."""

MOST_HORIZON = 1000
"""Coming slots that a decision may reckon with."""


@dataclass(frozen=True)
class ModelPredictive:
    """Solve the expected coming slots anew in every slot.

    Attributes
    ----------
    horizon
        Coming slots that count, at least 1.
    keep
        "joint": what is kept is chosen for all blocks and nodes at once. "in-turn": one node after
        another.
    """

    horizon: int = 3
    keep: KeepRule = "joint"

    def __post_init__(self) -> None:
        check_keep_rule(self.keep)
        if not 1 <= self.horizon <= MOST_HORIZON:
            raise ValueError(
                f"horizon: {self.horizon} is not allowed, must be >= 1 and <= {MOST_HORIZON}"
            )

    def place(self, prior: Prior) -> BoolArray:
        """Place greedily for the expected delay of slot 0 and the horizon."""
        return greedy_by_popularity(prior, 1 + self.horizon)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Take the first decisions of the dynamic programme."""
        problem = observation.problem
        coming = coming_tables(observation, self.horizon)
        if not len(coming.probability):  # the last slot: nothing comes after it
            return pull(problem, cache), cache
        cached = node_sets(cache)
        prices = storage_prices(problem, coming, cached)
        values = programme(coming, prices)
        sender = first_senders(problem, coming, values, cached)
        held = members(sender, problem.nodes).T
        # What a copy is worth in the next slot and after, before its own rent there.
        rent = coming.chains.member @ prices[0]
        cost = (values.cost[0] - rent)[coming.kind]
        planned = values.kept[0][coming.kind, sender]
        size, storage = problem.block_size, problem.storage
        keep = keep_by_cost(cost, held, size, storage, planned, rounds=ROUNDS)
        if self.keep == "joint":
            keep = keep_jointly(cost, held, size, storage, start=keep).keep
        return sources(problem, cached, sender), keep


@dataclass(frozen=True, eq=False)
class Values:
    """Values and decisions of the dynamic programme over H coming slots.

    Attributes
    ----------
    cost
        (H, C, 2^N) W, seconds per byte, prices included.
    left
        (H + 1, C, 2^N) A of the slot before each, the last one 0: left[s] = min over subsets of
        cost[s].
    kept
        (H, C, 2^N) the subset that attains it, the smaller of two.
    sender
        (H, C, 2^N) the best Q_l(X) if the block is needed.
    """

    cost: FloatArray
    left: FloatArray
    kept: IntArray
    sender: IntArray


def programme(coming: Expected, prices: FloatArray) -> Values:
    """Run the dynamic programme backwards.

    Parameters
    ----------
    coming
        Expected tables of H slots.
    prices
        (H, N) seconds per byte, at least 0.
    """
    chain = coming.chains
    shape = coming.broadcast.shape
    cost, left = np.zeros(shape), np.zeros((shape[0] + 1, *shape[1:]))
    kept, sender = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    row = np.arange(shape[2])
    for s in reversed(range(shape[0])):
        # If the block is needed, it is sent by its best level; else it stays where it is.
        after = left[s + 1]
        levels = chain.time + (coming.broadcast[s] + after)[:, chain.sender]
        best = levels.argmin(axis=2)
        sender[s] = chain.sender[row, best]
        needed = np.take_along_axis(levels, best[:, :, None], axis=2)[:, :, 0]
        chance = coming.probability[s][:, None]
        cost[s] = chain.member @ prices[s] + chance * needed + (1.0 - chance) * after
        left[s], kept[s] = best_subset(cost[s])
    return Values(cost, left, kept, sender)


def best_subset(cost: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return the least cost over all subsets of every set, and the subset, (C, 2^N) each."""
    least = cost.copy()
    subset = np.broadcast_to(np.arange(cost.shape[1]), cost.shape).copy()
    half = 1
    while half < cost.shape[1]:
        pair = least.reshape(len(cost), -1, 2, half)
        names = subset.reshape(pair.shape)
        fewer = pair[:, :, 0] <= pair[:, :, 1]
        pair[:, :, 1] = np.where(fewer, pair[:, :, 0], pair[:, :, 1])
        names[:, :, 1] = np.where(fewer, names[:, :, 0], names[:, :, 1])
        half *= 2
    return least, subset


def first_senders(
    problem: PlacementProblem, coming: Expected, values: Values, cached: IntArray
) -> IntArray:
    """Return (J,) the sets that hold each block at the end of this slot: the best Q_l(X).

    Parameters
    ----------
    problem
        This slot.
    coming, values
        Expected tables and their dynamic programme.
    cached
        (J,) X as node sets.
    """
    return best_senders(problem, coming.chains, values.left[0], coming.kind, cached)


def storage_prices(
    problem: PlacementProblem, coming: Expected, cached: IntArray, steps: int = STEPS
) -> FloatArray:
    """Return prices (H, N), seconds per byte, at which the expected bytes about fit the storage.

    Subgradient steps lambda <- max(0, lambda + step (bytes - storage) / library), lengths falling
    as 1 / (1 + step / 4) from the mean worth of a byte; the mean of the later half is returned.

    Parameters
    ----------
    problem
        This slot.
    coming
        Expected tables of H slots.
    cached
        (J,) what is cached now, as node sets.
    steps
        Number of steps.
    """
    prices = np.zeros((len(coming.probability), problem.nodes))
    total = np.zeros_like(prices)
    worth = coming.cost[:, :, 0] - coming.cost[:, :, -1]
    scale = float((worth @ problem.block_size).max()) / float(problem.block_size.sum())
    for step in range(steps):
        # What the nodes would hold at these prices, against their storage.
        values = programme(coming, prices)
        sender = first_senders(problem, coming, values, cached)
        excess = expected_bytes(problem, coming, values, sender) - problem.storage
        length = scale / (1.0 + step / 4.0)
        prices = np.maximum(0.0, prices + length * excess / problem.storage.clip(1))
        if step >= steps // 2:  # subgradient steps do not settle: their mean does
            total += prices
    return total / (steps - steps // 2)


def expected_bytes(
    problem: PlacementProblem, coming: Expected, values: Values, sender: IntArray
) -> FloatArray:
    """Return (H, N) the bytes that every node is expected to hold in the coming slots.

    Parameters
    ----------
    problem
        This slot.
    coming, values
        Expected tables and their dynamic programme.
    sender
        (J,) where the blocks are at the end of this slot.
    """
    slots, kinds, sets = values.cost.shape
    row = np.arange(kinds)[:, None]
    mass = np.zeros((kinds, sets))  # bytes of every kind held by every node set
    np.add.at(mass, (coming.kind, sender), problem.block_size)
    used = np.zeros((slots, problem.nodes))
    for s in range(slots):
        # Every set keeps its best subset, then is sent to its best senders if it is needed.
        held = np.zeros_like(mass)
        np.add.at(held, (row, values.kept[s]), mass)
        used[s] = held.sum(axis=0) @ coming.chains.member
        chance = coming.probability[s][:, None]
        mass = (1.0 - chance) * held
        np.add.at(mass, (row, values.sender[s]), chance * held)
    return used
