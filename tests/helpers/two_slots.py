"""A game of two slots whose optimum can be read off.

Two nodes with room for one block each, two blocks A and B of 1 byte. From the cloud a byte takes
1 s to either node, between nodes 0.5 s; on the air 0.55 s from one node, 0.1 s from both. Caches
are empty. In slot 0 both blocks are needed: both nodes receive both, 1 + 0.1 s each. In slot 1 only
B is needed: 0.1 s if both nodes kept it, 0.55 s if one did, 1.1 s if none. The tables say
otherwise: A is needed with probability 0.6 and B with 0.4, so that keeping A at both seems best.

    as the tables say    2.2 + 1.1 = 3.3 s          optimum    2.2 + 0.1 = 2.3 s
"""

from __future__ import annotations

import numpy as np
import torch
from fixed_source import FixedSource

from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import lookahead_of
from finecast.learners.world.pool import Pool
from finecast.learners.world.slot_tables import (
    history_scores,
    tables_coming,
    tables_now,
    tensors_of,
)
from finecast.solvers.placement.chains import chains, reach_times, source_times

START = 3.3
OPTIMUM = 2.3


def game() -> Episodes:
    """Return the game as one draw."""
    link = np.array([[np.inf, 0.5], [0.5, np.inf], [1.0, 1.0]])
    table = chains(link)
    air = np.array([np.inf, 0.55, 0.55, 0.1])
    group = np.array([[0, 0], [-1, 0]])
    reach = np.ones((2, 1, 2))
    users = np.ones((2, 1, 1), dtype=bool)
    need = np.array([[[0.6, 0.4]], [[0.0, 0.0]]])  # (T, H, C)
    wanted = need[:, :, None]  # (T, H, K, C)
    arrays = {
        **tables_now(
            group,
            np.tile(air, (2, 1, 1)),
            users,
            reach,
            np.zeros((2, 1), dtype=int),
            table,
        ),
        **tables_coming(need, np.tile(air, (2, 1, 2, 1)), wanted, reach, table),
        **history_scores((group >= 0).astype(float)),
        "size": np.ones(2),
        "storage": np.ones(2),
        "kind": np.arange(2),
        "sharing": np.full(2, 0.5),
        "contains": np.ones((1, 2), dtype=bool),
        "link": link,
        "chain_sender": table.sender,
        "chain_time": table.time,
        "reach_time": reach_times(link, table.member),
        "fastest": source_times(link, table.member).argmin(axis=1),
    }
    return Episodes(
        **tensors_of(arrays, torch.float32),
        start=torch.zeros((1, 2, 2), dtype=torch.bool),
        bound=torch.tensor([OPTIMUM], dtype=torch.float64),
        block_count=torch.tensor([2]),
    )


def source(episodes: Episodes | None = None) -> FixedSource:
    """Return the game, or other episodes, as what learners draw from."""
    draws = game() if episodes is None else episodes
    return FixedSource(Pool(0, draws, lookahead_of(draws, steps=10)[0], draws.draws))
