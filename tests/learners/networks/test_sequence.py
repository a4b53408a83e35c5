"""The sequence model: a node attends to what those before it decided, and to no later decision."""

from __future__ import annotations

from dataclasses import replace

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
    """What node 2 alone sees of block 4 changes what node 1 scores; of block 7 it does not."""
    slot = episodes().slot(1)
    cached = packed(episodes().start)
    seen = features(View(slot, cached, cached, cached * 0), None)
    single = SequenceNetwork(width=16, embedding=8)
    single.load_state_dict({k: v.float() for k, v in network.state_dict().items()})
    own = seen.own.clone()
    own[:, 2, 4] += 1.0
    nobody = torch.zeros(2, 2)
    with torch.no_grad():
        before, after = (
            single.at(single.embed(each), CELLS, nobody).keep
            for each in (seen, replace(seen, own=own))
        )
    assert bool((before[0] - after[0]).abs() > 1e-5)
    assert before[1] == after[1]


def test_no_rows_have_no_scores(network, embedded):
    """A node may have nothing to decide on: nobody needs a block, or it holds none."""
    nothing = torch.zeros(0, dtype=torch.int64)
    with torch.no_grad():
        found = network.at(embedded, Cells(nothing, nothing, nothing), torch.zeros(0, 2))
    assert found.keep.shape == (0,)
    assert found.source.shape == (0, 3)
