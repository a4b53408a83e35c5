"""x[0] of online methods that learn from the slots they see.

What a method holds before slot 0 says little about how it adapts, and much about its delay on a
short horizon. So by default all of them begin alike, as `rolling` and learned policies do: with the
greedy of `greedy-online` for the expected delay of slot 0. Each can begin in its own way instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, checked_choice
from finecast.solvers.heuristics.fractional import draw_caches, evenly
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.online import Prior

Initial = Literal["greedy-online", "own"]


def initial_caches(prior: Prior, initial: Initial, own: Callable[[Prior], BoolArray]) -> BoolArray:
    """Return x[0], (N, J).

    Parameters
    ----------
    prior
        What is known before slot 0.
    initial
        "greedy-online": greedily for the expected delay of slot 0. "own": as `own` says.
    own
        The method's own way to begin.
    """
    return own(prior) if initial == "own" else greedy_by_popularity(prior, 1)


def initial_fractions(prior: Prior, initial: Initial, seed: int) -> tuple[BoolArray, FloatArray]:
    """Return x[0], (N, J), and the fractions (N, J) that it stands for.

    Parameters
    ----------
    prior
        What is known before slot 0.
    initial
        "greedy-online": its whole blocks. "own": drawn from equal fractions of all blocks.
    seed
        Seed of the draw.
    """
    size, storage = prior.library.block_size, prior.network.storage
    even = evenly(size, storage)

    def drawn(_: Prior) -> BoolArray:
        return draw_caches(even, np.ones(even.shape, dtype=bool), size, storage, seed)

    cache = initial_caches(prior, initial, drawn)
    return cache, even if initial == "own" else cache.astype(np.float64)


def check_initial(initial: str) -> None:
    """Refuse another way to begin.

    Raises
    ------
    ValueError
        It is.
    """
    checked_choice("initial", initial, ("greedy-online", "own"))
