"""TrimCaching: placement by expected cache hits when models share parameter blocks.

    U(x) = sum over users k and models m of p_km [1 - prod over nodes n (1 - x_nm e_nkm)]

x_nm: node n stores every block of model m, shared blocks once; e_nkm: node n is able to deliver m
to user k in time. That objective, the storage counted once per shared block, and the guarantee of
Spec, (1 - eps) / 2 by treating the nodes in turn with a rounded dynamic programme each, are of

    Qu, Lin, Liu, Chen, Huang, TrimCaching, IEEE ICDCS 2024, arXiv 2405.03990; journal version
    with Q. Chen and J. Li, arXiv 2404.14204.

The steps of both algorithms are our reading of them, not the authors' code. p_km is the expected
number of requests over all slots. Before slot 0 no channel is known, so every node can deliver
every model to every user, unless a bound on the latency leaves out models that are too large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class HitProblem:
    """Expected hits as a function of what the nodes store.

    Parameters
    ----------
    size, storage
        (J,) and (N,) byte.
    model_blocks
        (M, J) model m contains block j.
    weight
        (K, M) p, expected requests of user k for model m.
    able
        (N, K, M) e, node n can deliver model m to user k in time.
    """

    size: IntArray
    storage: IntArray
    model_blocks: BoolArray
    weight: FloatArray
    able: BoolArray


def expected_hits(problem: HitProblem, cache: BoolArray) -> float:
    """Return U, the expected number of hits of the caches (N, J).

    Parameters
    ----------
    problem
        The problem.
    cache
        (N, J) node n holds block j.
    """
    return float(problem.weight[_hit(problem, complete_models(problem, cache))].sum())


def complete_models(problem: HitProblem, cache: BoolArray) -> BoolArray:
    """Return (..., M), the models all of whose blocks are in the caches (..., J)."""
    missing = (~cache).astype(np.float64) @ problem.model_blocks.T
    return np.asarray(missing == 0)


def generic_greedy(problem: HitProblem) -> BoolArray:
    """TrimCaching Gen: add the (node, model) with the largest gain in hits that still fits.

    The bytes of a model are those of its blocks that the node lacks. It ends when nothing that fits
    gains, so that storage may stay empty. No constant share of the optimum is guaranteed.

    Parameters
    ----------
    problem
        The problem.

    Returns
    -------
    (N, J) caches.
    """
    nodes = len(problem.storage)
    cache = np.zeros((nodes, len(problem.size)), dtype=bool)
    hit = np.zeros(problem.weight.shape, dtype=bool)
    complete = np.stack([complete_models(problem, problem.model_blocks)] * nodes)  # (N, M, M)
    while True:
        left = np.where(hit, 0.0, problem.weight)
        worth = np.einsum("km,nkm->nm", left, problem.able)  # (N, M) hits of completing m at n
        gain = np.einsum("nam,nm->na", complete, worth)
        both = cache[:, None] | problem.model_blocks
        fits = both @ problem.size <= problem.storage[:, None]
        gain = np.where(fits, gain, 0.0)
        n, m = np.unravel_index(gain.argmax(), gain.shape)
        if gain[n, m] <= 0.0:
            return cache
        cache[n] |= problem.model_blocks[m]
        hit |= _hit(problem, complete_models(problem, cache))
        complete[n] = complete_models(problem, cache[n] | problem.model_blocks)


def successive_programme(
    problem: HitProblem, *, eps: float = 0.1, max_combinations: int = 4096
) -> tuple[BoolArray, bool]:
    """TrimCaching Spec: the nodes in turn, each by a knapsack for every set of shared blocks.

    A node gains the hits that the nodes before it left. Of every combination of shared blocks
    that some models need together, the candidates are the models whose shared blocks are all in
    it, and the rest of each is an item of its own: a knapsack of hits against bytes. Values are
    rounded down to multiples of eps max / (number of items), which costs a share eps at most.

    Parameters
    ----------
    problem
        The problem.
    eps
        In (0, 1), precision of the knapsack.
    max_combinations
        Combinations to try at a node. Their number grows exponentially with the independent shared
        parts; beyond, those of the most models are left out and the guarantee is void.

    Returns
    -------
    cache
        (N, J) caches.
    complete
        All combinations were tried: the hits are at least (1 - eps) / 2 of the optimum.

    Raises
    ------
    ValueError
        `eps` or `max_combinations` is out of range.
    """
    check_spec(eps, max_combinations)
    shared = problem.model_blocks.sum(axis=0) > 1
    common = problem.model_blocks & shared
    own_size = (problem.model_blocks & ~shared) @ problem.size
    combinations, complete = _unions(common, max_combinations)
    cache = np.zeros((len(problem.storage), len(problem.size)), dtype=bool)
    hit = np.zeros(problem.weight.shape, dtype=bool)
    for n, storage in enumerate(problem.storage):
        worth = (np.where(hit, 0.0, problem.weight) * problem.able[n]).sum(axis=0)
        best, chosen = 0.0, cache[n]
        # The best knapsack of models over all combinations of shared blocks.
        for combination in combinations:
            free = int(storage - combination @ problem.size)
            if free < 0:
                continue
            inside = ~(common & ~combination).any(axis=1)
            models = np.flatnonzero(inside & (worth > 0) & (own_size <= free))
            taken = models[rounded_knapsack(worth[models], own_size[models], free, eps)]
            blocks = np.asarray(problem.model_blocks[taken].any(axis=0))
            value = float(worth[complete_models(problem, blocks)].sum())
            if value > best:
                best, chosen = value, blocks
        cache[n] = chosen
        hit |= _hit(problem, complete_models(problem, cache))
    return cache, complete


def rounded_knapsack(value: FloatArray, weight: IntArray, capacity: int, eps: float) -> IntArray:
    """Return the items of a knapsack worth at least 1 - eps of the best.

    least[i, v] = min(least[i-1, v], weight_i + least[i-1, v - v_i]), the least weight of rounded
    value v with the first i items (O. H. Ibarra, C. E. Kim, J. ACM 22 (1975) 463-468).

    Parameters
    ----------
    value
        (I,) positive.
    weight
        (I,) each at most `capacity`.
    capacity
        Limit on the sum of the weights.
    eps
        Share of the value that may be lost.
    """
    items = len(value)
    if int(weight.sum()) <= capacity:
        return np.arange(items)
    # Values in whole steps, so that the table has a column for each sum.
    rounded = np.floor(value / (eps * value.max() / items)).astype(np.int64)
    least = np.full((items + 1, int(rounded.sum()) + 1), np.inf)
    least[0, 0] = 0.0
    for i, v in enumerate(rounded):
        least[i + 1] = least[i]
        least[i + 1, v:] = np.minimum(least[i, v:], weight[i] + least[i, : least.shape[1] - v])
    # The best sum that fits, and back from it the items that make it up.
    left = int(np.flatnonzero(least[items] <= capacity).max())
    taken = []
    for i in range(items, 0, -1):
        if least[i, left] < least[i - 1, left]:
            taken.append(i - 1)
            left -= int(rounded[i - 1])
    return np.array(taken[::-1], dtype=np.int64)


def check_spec(eps: float, max_combinations: int) -> None:
    """Refuse options out of range.

    Raises
    ------
    ValueError
        `eps` or `max_combinations` is out of range.
    """
    if not 0.0 < eps < 1.0:
        raise ValueError(f"eps: {eps} is not allowed, must be > 0 and < 1")
    if max_combinations < 1:
        raise ValueError(f"max_combinations: {max_combinations} is not allowed, must be >= 1")


def _hit(problem: HitProblem, stored: BoolArray) -> BoolArray:
    """Return (K, M) whether some node that stores the model, (N, M), can deliver it in time."""
    return np.asarray((stored[:, None, :] & problem.able).any(axis=0))


def _unions(common: BoolArray, limit: int) -> tuple[BoolArray, bool]:
    """Return the unions of any number of the rows, fewest rows first, and whether all are there."""
    parts = np.unique(common, axis=0)
    unions = {np.zeros(common.shape[1], dtype=bool).tobytes(): None}  # in order, without doubles
    newest = list(unions)
    while newest:
        # Each union of the round before, with each part.
        grown, newest = newest, []
        for union in grown:
            for part in parts:
                wider = (np.frombuffer(union, dtype=bool) | part).tobytes()
                if wider not in unions:
                    if len(unions) == limit:
                        return _rows(unions), False
                    unions[wider] = None
                    newest.append(wider)
    return _rows(unions), True


def _rows(unions: dict[bytes, None]) -> BoolArray:
    return np.stack([np.frombuffer(row, dtype=bool) for row in unions])
