"""Random tiny systems for the demand programme: two nodes, two users, three models and kinds."""

from __future__ import annotations

import numpy as np

from finecast.problem.demand import Demand
from finecast.solvers.placement.chains import chains
from finecast.solvers.placement.demand_programme import DemandProgramme
from finecast.solvers.placement.user_states import UserGroups

SLOTS, USERS, MODELS, NODES = 3, 2, 3, 2
CONTAINS = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 1]], dtype=float)  # (M, C)


def link_of(seed: int) -> np.ndarray:
    """Return the links of a system, seconds per byte."""
    return np.random.default_rng((seed, 1)).uniform(0.5, 3.0, (NODES + 1, NODES))


def system(
    seed: int,
    persistence: float = 0.6,
    activity: float = 1.0,
    group: tuple[int, ...] = (0, 1),
) -> DemandProgramme:
    """Return a random programme of three kinds, at two nodes."""
    rng = np.random.default_rng(seed)
    users = len(group)
    preference = rng.dirichlet(np.ones(MODELS), (SLOTS, users))
    groups = UserGroups(np.array(group))
    # More nodes send faster; only the number of users matters where they are counted together.
    speed = rng.uniform(0.2, 1.0, (groups.states, NODES))
    table = chains(link_of(seed))
    with np.errstate(divide="ignore"):
        broadcast = 1.0 / (table.member @ speed.T)
    return DemandProgramme(
        demand=Demand(preference, persistence, np.full(users, activity)),
        contains=CONTAINS,
        groups=groups,
        broadcast=broadcast,
        chains=table,
        prices=rng.uniform(0.0, 1.0, (SLOTS, NODES)),
    )
