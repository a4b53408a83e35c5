"""Rounding and search of the joint keep rule: from prices to an answer that fits to the byte."""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.heuristics.joint_options import Options

REPAIR = 200
"""Options that may replace what is too much for a node, besides keeping it nowhere."""

CORE = 64
"""Options that the search may turn to, those of least reduced cost."""

MOVES = 250
"""Moves of each half of the blocks that are combined, those of least reduced cost."""

SPLITS = 2
"""Ways to split the blocks in two halves."""


def repaired(options: Options, reduced: FloatArray, storage: IntArray) -> IntArray:
    """Return (B,) the best options at the prices, changed until they fit.

    Every change is that of least reduced cost per byte of excess removed.

    Parameters
    ----------
    options
        The options.
    reduced
        (P,) their reduced costs, s.
    storage
        (N,) byte.
    """
    order = np.argsort(reduced, kind="stable")
    answer = np.full(len(options.first), -1)
    answer[options.block[order][::-1]] = order[::-1]  # of equal ones the first
    weight = options.bytes()
    excess = weight[answer].sum(axis=0) - storage
    # The candidates: the cheapest options, and keeping each block nowhere.
    candidate = np.union1d(order[: len(answer) + REPAIR], options.first)
    block = options.block[candidate]
    change = weight[candidate] - weight[answer[block]]
    loss = reduced[candidate] - reduced[answer[block]]
    while (excess > 0).any():
        removed = np.maximum(excess, 0).sum() - np.maximum(excess + change, 0).sum(axis=1)
        helps = np.flatnonzero(removed > 0)
        best = helps[(loss[helps] / removed[helps]).argmin()]
        excess = excess + change[best]
        answer[block[best]] = candidate[best]
        same = block == block[best]
        change[same] = change[same] - change[best]
        loss[same] = loss[same] - loss[best]
    return answer


def found(options: Options, sets: IntArray) -> IntArray:
    """Return (B,) the options at which the blocks take the sets (B,); keeping nowhere for others.

    A set that is no option costs infinity.
    """
    key = options.block << 32 | options.chosen
    wanted = np.arange(len(sets)) << 32 | sets
    place = np.searchsorted(key, wanted).clip(max=len(key) - 1)
    return np.where(key[place] == wanted, place, options.first)


def _core(options: Options, reduced: FloatArray, answer: IntArray, gap: float) -> IntArray:
    """Return the options that the search may turn to, the cheapest blocks first.

    They are those of least reduced cost, none above the gap, and the best ones of their blocks and
    of the blocks (B,) whose answer is another.
    """
    order = np.argsort(reduced, kind="stable")
    best = order[np.unique(options.block[order], return_index=True)[1]]
    is_best = np.zeros(len(order), dtype=bool)
    is_best[best] = True
    other = order[~is_best[order]][:CORE]
    other = other[reduced[other] <= gap]
    touched = best != answer
    touched[options.block[other]] = True
    return np.append(other, best[touched])


def _pairs(block: IntArray) -> list[tuple[tuple[IntArray, IntArray], ...]]:
    """Return for every split of the blocks the pairs of options in each of its halves.

    Parameters
    ----------
    block
        (K,) of the options of the core.

    Returns
    -------
    `SPLITS` times two pairs of (R,) indices of options, of different blocks. Index K is no option.
    """
    # Blocks by their cheapest option: neighbours go to different halves.
    _, first, of_block = np.unique(block, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[of_block]
    splits = []
    for split in range(SPLITS):
        halves = []
        for side in (0, 1):
            option = np.append(np.flatnonzero(rank >> split & 1 == side), len(block))
            a, b = np.triu_indices(len(option))
            a, b = option[a], option[b]
            apart = np.append(block, -1)[a] != np.append(block, -1)[b]
            apart[-1] = True  # no move at all
            halves.append((a[apart], b[apart]))
        splits.append(tuple(halves))
    return splits


def searched(
    options: Options, prices: FloatArray, reduced: FloatArray, answer: IntArray, storage: IntArray
) -> IntArray:
    """Return the answer (B,) after the best exchanges of up to four blocks, until none helps.

    The blocks are split in two halves, in turn in `SPLITS` ways, and up to two change in each. With
    d the priced gain of a move and w the price of the free bytes, two moves can only help if
    d + d' < w: the bytes that remain free are worth at least 0.

    Parameters
    ----------
    options
        The options.
    prices
        (N,) of storage, seconds per byte.
    reduced
        (P,) reduced costs of the options at the prices, s.
    answer
        (B,) options that fit.
    storage
        (N,) byte.
    """
    answer = answer.copy()
    weight = options.bytes()
    free = storage - weight[answer].sum(axis=0)
    core = _core(options, reduced, answer, float(reduced[answer].sum() + prices @ free))
    block, charge, core_weight = options.block[core], options.charge[core], weight[core]
    splits = _pairs(block)
    least = 1e-12 * float(np.abs(options.charge[answer]).sum())
    failed = turn = 0
    while failed < SPLITS:
        # What every option would change, the last one being none.
        now = answer[block]
        gain = np.append(charge - options.charge[now], 0.0)
        change = np.append(core_weight - weight[now], np.zeros((1, len(free)), np.int64), axis=0)
        priced = gain + change @ prices
        priced[:-1][now == core] = np.inf  # no change
        waste = float(prices @ free)
        # The moves of each half that can help, at most so many.
        totals = [priced[a] + priced[b] for a, b in splits[turn]]
        limits = [waste - float(total.min()) for total in totals[::-1]]
        moves = []
        for (a, b), total, limit in zip(splits[turn], totals, limits, strict=True):
            some = np.flatnonzero(total < limit)
            some = some[np.argsort(total[some], kind="stable")[:MOVES]]
            moves.append((a[some], b[some]))
        (a, b), (c, d) = moves
        # All pairs of a move of each half: what saves something, and fits into every node.
        gain_one, gain_two = gain[a] + gain[b], gain[c] + gain[d]
        need, room = change[a] + change[b], free - change[c] - change[d]
        helps = gain_one[:, None] < -least - gain_two
        for n in range(len(free)):
            helps &= need[:, n, None] <= room[:, n]
        one, two = np.divmod(np.flatnonzero(helps), len(c))
        turn = (turn + 1) % SPLITS
        failed = 0 if len(one) else failed + 1
        if len(one):
            best = int((gain_one[one] + gain_two[two]).argmin())
            taken = np.array([a[one[best]], b[one[best]], c[two[best]], d[two[best]]])
            free = free - change[taken].sum(axis=0)
            taken = taken[taken < len(core)]
            answer[block[taken]] = core[taken]
    return answer
