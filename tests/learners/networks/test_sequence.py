"""The sequence model: a node attends to what those before it decided, and to no later decision."""

from __future__ import annotations

import pytest
import torch
from learner_scenarios import episodes

from finecast.learners.networks.features import features
from finecast.learners.networks.sequence import SequenceNetwork
from finecast.learners.networks.whole import Cells
from finecast.learners.world.environment import View, packed


@pytest.fixture(scope="module")
def network() -> SequenceNetwork:
    torch.manual_seed(0)
    return SequenceNetwork(width=16, embedding=8).double()


@pytest.fixture(scope="module")
def embedded(network):
    slot = episodes().slot(1)
    cached = packed(episodes().start)
    seen = features(View(slot, cached, cached, cached * 0), None)
    doubled = [getattr(seen, name).double() for name in ("own", "neighbour", "cloud", "state")]
    return network.embed(type(seen)(*doubled, seen.real, seen.may_pull, seen.may_keep))


CELLS = Cells(torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([4, 7]))
"""Of node 1: its neighbours are 0 and 2."""


def scores(network, embedded, company):
    with torch.no_grad():
        return network.at(embedded, CELLS, torch.tensor(company))


def test_what_was_decided_before_changes_the_scores(network, embedded):
    """That a node keeps the block, that it does not, and that it has not decided are three."""
    found = [
        scores(network, embedded, [[decision, 0.0], [decision, 0.0]])
        for decision in (-1.0, 0.0, 1.0)
    ]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        for name in ("keep", "nothing", "source"):
            change = getattr(found[first], name) - getattr(found[second], name)
            assert bool((change.abs() > 1e-6).all()), name


def test_whose_decision_it_was_matters(network, embedded):
    """The token of the node carries what it sees and what it decided together."""
    first = scores(network, embedded, [[1.0, -1.0], [1.0, -1.0]])
    second = scores(network, embedded, [[-1.0, 1.0], [-1.0, 1.0]])
    assert bool(((first.keep - second.keep).abs() > 1e-6).all())


def test_decisions_on_another_row_change_nothing(network, embedded):
    """Rows are decoded apart, and company adds nothing beside the decoder."""
    first = scores(network, embedded, [[1.0, -1.0], [1.0, -1.0]])
    second = scores(network, embedded, [[1.0, -1.0], [-1.0, 1.0]])
    torch.testing.assert_close(first.keep[0], second.keep[0])
    assert not bool(first.company.any())


def test_nodes_see_each_other_through_the_encoder(network):
    """What node 2 alone sees changes what node 0 does; another block's does not."""
    slot = episodes().slot(1)
    cached = packed(episodes().start)
    seen = features(View(slot, cached, cached, cached * 0), None)
    single = SequenceNetwork(width=16, embedding=8)
    single.load_state_dict({k: v.float() for k, v in network.state_dict().items()})
    own = seen.own.clone()
    own[:, 2, 4] += 1.0
    with torch.no_grad():
        before = single(seen).keep
        after = single(type(seen)(own, *(getattr(seen, n) for n in NAMES))).keep
    changed = (before - after).abs() > 1e-5
    assert bool(changed[:, :, 4].all())
    assert not bool(changed[:, :, 5].any())


NAMES = ("neighbour", "cloud", "state", "real", "may_pull", "may_keep")
