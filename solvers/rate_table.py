"""The rate table of an instance: which messages to solve, and their rates in every slot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.solvers.beamforming.by_name import KERNEL, Beams, Proof, check_name, prove_again
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.kept_rates import Kept, keep, read_kept, table_key
from finecast.solvers.node_set_tables import FULL_TABLES, bits, members
from finecast.solvers.partial_rates import better_of, quick_rates
from finecast.solvers.rate_search import TIMED_CHUNK, Batch, Find, by_search, solve_user_sets
from finecast.solvers.rates import SlotRates, closed_slots, user_reach
from finecast.solvers.result import Callback

FULL_FAMILY_NODES = 6
"""Up to so many nodes every set of them is solved; beyond, a family of sets."""

NEIGHBOURS = 3
"""Nearest nodes, itself included, in a node's neighbourhood of the family beyond 6 nodes."""

GROUP_NODES = 5
"""Beyond 8 nodes every group has its own family: all subsets of so many nodes, and more."""


def node_sets_to_solve(
    instance: Instance, users: Sequence[BoolArray], robust: bool
) -> list[IntArray]:
    """Return per slot (G, F) the node sets to solve for every user set.

    The same for all user sets up to 8 nodes (`node_set_family`); beyond, each its own
    (`group_family`).

    Parameters
    ----------
    instance
        The problem.
    users
        Per slot (G, K) bool, the user sets.
    robust
        Plans are for the error balls.
    """
    if instance.nodes <= FULL_TABLES:
        return same_for_all(node_set_family(instance), users)
    return [group_family(user_reach(instance, t, robust), u) for t, u in enumerate(users)]


def same_for_all(node_sets: IntArray, users: Sequence[BoolArray]) -> list[IntArray]:
    """Return per slot (G, F) the same node sets (F,) for every user set."""
    return [np.broadcast_to(node_sets, (len(u), len(node_sets))) for u in users]


def group_family(reach: FloatArray, users: BoolArray) -> IntArray:
    """Return (G, F) node sets for every user set, by the nodes that matter most to it.

    A node matters by its share of the amplitude that reaches the users, summed over them. The
    sets: all subsets of the first 5 nodes, alone and with all other nodes; the first 6, 7, ...
    nodes; all nodes but one.

    Parameters
    ----------
    reach
        (K, N) amplitude of each node at a user.
    users
        (G, K) bool, the user sets.
    """
    nodes = reach.shape[1]
    share = reach / np.maximum(reach.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    order = np.argsort(-(users @ share), axis=1, kind="stable")
    bit = bits(nodes)[order]  # (G, N) the nodes of each user set, those that matter most first
    everywhere = (1 << nodes) - 1
    chosen = members(np.arange(1 << GROUP_NODES), GROUP_NODES).astype(np.int64)
    subsets = bit[:, :GROUP_NODES] @ chosen.T
    others = bit[:, GROUP_NODES:].sum(axis=1, keepdims=True)
    leading = np.cumsum(bit, axis=1)[:, GROUP_NODES : nodes - 1]
    all_but_one = everywhere & ~bit[:, GROUP_NODES:]
    return np.concatenate([subsets[:, 1:], subsets | others, leading, all_but_one], axis=1)


def node_set_family(instance: Instance) -> IntArray:
    """Return the node sets to solve for every user set, up to 8 nodes.

    All of them up to 6 nodes; beyond, every single node, every pair, every node's neighbourhood
    (itself and the nodes with the strongest channels to the users that it serves best, on
    average over slots), and the full set.
    """
    nodes = instance.nodes
    if nodes <= FULL_FAMILY_NODES:
        return np.arange(1, 1 << nodes)
    singles = [1 << n for n in range(nodes)]
    pairs = [a | b for a, b in combinations(singles, 2)]
    strength = np.linalg.norm(instance.channel_estimate, axis=3).mean(axis=0)  # (K, N)
    own = strength.argmax(axis=1)
    around = []
    for n in range(nodes):
        seen = strength[own == n].sum(axis=0)
        seen[n] = np.inf
        around.append(sum(1 << int(m) for m in np.argsort(-seen)[:NEIGHBOURS]))
    return np.unique([*singles, *pairs, *around, (1 << nodes) - 1])


def rate_table(
    instance: Instance,
    users: Sequence[BoolArray],
    node_sets: Sequence[IntArray],
    *,
    beamforming: str = "multicast",
    robust: bool = True,
    splits: bool = True,
    seed: int = 0,
    callback: Callback | None = None,
    cache: str | os.PathLike[str] | None = None,
    deadline: Deadline = NEVER,
) -> tuple[SlotRates, ...]:
    """Return the rates of every slot.

    Parameters
    ----------
    instance
        The problem.
    users
        Per slot (G, K) bool, the user sets; none is empty.
    node_sets
        Per slot (G, F) bit masks of the node sets to solve.
    beamforming
        Name of the beamforming method; see `finecast.solvers.beamforming.by_name`.
    robust
        Plans are for the error balls; otherwise as if the estimated channels were true.
    splits
        Bounds hold for plans that split user sets, too.
    seed
        Seed of the beamforming method's random starts.
    callback
        Receives the progress after every thousand messages.
    cache
        Folder in which tables are kept, by a hash of everything they depend on; None for none.
        Rates and bounds of a table from there are proven again (`finecast.solvers.kept_rates`).
    deadline
        When to be done. Every set of nodes has a rate then, of quickly found beams where there was
        no time for better ones (`finecast.solvers.partial_rates`).

    Raises
    ------
    ValueError
        There is no such beamforming method.
    """
    check_name(beamforming)
    slot = np.concatenate([np.full(len(u), t) for t, u in enumerate(users)]).astype(np.int64)
    all_users, all_sets = np.concatenate(users), np.concatenate(node_sets)
    find, kept = by_search(instance, beamforming, seed), None
    if cache is not None:
        key = table_key(
            instance, users, node_sets, beamforming=beamforming, robust=robust, seed=seed
        )
        path = Path(cache) / f"{key}.npz"
        known = read_kept(path, all_sets, instance)
        if known is not None:
            find = _from_disk(instance, known)
        else:
            kept = Kept.room(all_sets, instance)
            find = _noted(find, kept)
    # Other methods take up to a second a message: first rates in closed form, and the clock is
    # looked at after each message.
    batched = beamforming == KERNEL
    quick = None
    if not deadline.endless:
        quick = quick_rates(
            instance, slot, all_users, all_sets,
            beamforming=KERNEL if batched else "matched", seed=seed, robust=robust, splits=splits,
            deadline=deadline,
        )  # fmt: skip
    solved = solve_user_sets(
        instance, slot, all_users, all_sets, find,
        robust=robust, splits=splits, callback=callback, deadline=deadline,
        timed_chunk=TIMED_CHUNK if batched else 1,
    )  # fmt: skip
    whole = bool(np.isfinite(solved.snr_bound).all())
    if kept is not None and whole:
        keep(path, kept)
    if quick is not None and not whole:
        solved = better_of(solved, quick)
    return closed_slots(instance, users, robust, splits, node_sets, solved)


def _from_disk(instance: Instance, known: Kept) -> Find:
    """Return the proof of beams and dual points that were kept."""

    def find(batch: Batch) -> Beams:
        entry = batch.row, batch.column
        of_user = batch.row[:, None], batch.column[:, None], batch.listener
        return prove_again(
            batch.channel,
            batch.error,
            instance.network.power,
            node_mask=batch.node_mask,
            user_mask=batch.user_mask,
            beamformer=known.beam[entry],
            proof=Proof(known.weight[of_user], known.slope[of_user], known.price[entry]),
        )

    return find


def _noted(find: Find, kept: Kept) -> Find:
    """Return the same search, which leaves its beams and dual points in `kept`."""

    def note(batch: Batch) -> Beams:
        found = find(batch)
        entry = batch.row, batch.column
        of_user = batch.row[:, None], batch.column[:, None], batch.listener
        kept.beam[entry], kept.price[entry] = found.beamformer, found.proof.price
        kept.weight[of_user], kept.slope[of_user] = found.proof.weight, found.proof.slope
        return found

    return note
