"""Expected costs on demand are those of the tables."""

from __future__ import annotations

import numpy as np
import pytest
from repository import TINY

from finecast.problem.scenario import read_scenario
from finecast.solvers.heuristics.expected import coming_tables
from finecast.solvers.heuristics.expected_on_demand import coming_cost
from finecast.solvers.online import observation_of, prepare_slots, prior_of
from finecast.solvers.restrictions import restricted_instance


@pytest.mark.parametrize("restrict", [(), ("unicast",), ("no-comp",), ("no-migration", "coarse")])
def test_coming_cost_is_the_table(restrict):
    """Every block under every set of nodes; nothing after the last slot."""
    changes = {"nodes.count": 3, "slots": 2, "demand.persistence": 0.5, "channel.error": 0.05}
    instance = read_scenario(TINY).with_(changes).generate(2)
    slots = prepare_slots(instance, restrict=restrict)
    restrictions = frozenset(restrict)
    instance = restricted_instance(instance, restrictions)
    prior = prior_of(instance, restrictions)
    first, last = (observation_of(instance, prior, t, slots[t]) for t in (0, 1))
    table = coming_tables(first, 1).cost[0]
    block, sets = np.arange(prior.library.blocks)[:, None], np.arange(8)
    assert coming_cost(first)[block, sets] == pytest.approx(table, rel=1e-12)
    assert coming_cost(last) is None
