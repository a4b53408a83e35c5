"""Values of node sets: sums over nodes, and over pairs of them."""

from __future__ import annotations

import itertools

import pytest
import torch

from finecast.learners.algorithms.qmix import SetValues
from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, STATE, Features
from finecast.learners.registry import learner_kind

SMALL = {"width": 16, "embedding": 8}


def some_features(nodes: int = 4, rows: int = 6) -> Features:
    generator = torch.Generator().manual_seed(0)
    return Features(
        own=torch.rand(rows, nodes, len(OWN), generator=generator),
        neighbour=torch.rand(rows, nodes, nodes - 1, len(NEIGHBOUR), generator=generator),
        cloud=torch.rand(rows, nodes, len(CLOUD), generator=generator),
        state=torch.rand(rows, len(STATE), generator=generator),
        real=torch.ones(rows, dtype=torch.bool),
        may_pull=torch.ones(rows, nodes, nodes + 1, dtype=torch.bool),
        may_keep=torch.ones(rows, nodes, dtype=torch.bool),
    )


def trained(network: SetValues) -> SetValues:
    """The network with weights in place of the zeros it starts at."""
    torch.manual_seed(3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("semantics", [False, True])
def test_a_sum_over_nodes_and_ordered_pairs(pairs, semantics):
    """By hand for every set: minus what each member scores, and what it scores of each other."""
    config = learner_kind("dcg").config({**SMALL, "pairs": pairs, "action_semantics": semantics})
    network, seen = trained(SetValues(config, 4)), some_features()
    with torch.no_grad():
        found = network(seen) - network.level(seen.state)
        scores = network.nodes(seen)
    for held in range(16):
        inside = [n for n in range(4) if held >> n & 1]
        total = -sum((scores.keep[:, n] for n in inside), torch.zeros(6))
        for n, m in itertools.permutations(inside, 2):
            total = (
                total - pairs * scores.company[:, n, [k for k in range(4) if k != n].index(m), 1]
            )
        torch.testing.assert_close(found[:, held], total)


def test_with_pairs_a_copy_is_worth_less_beside_another():
    """Without pairs what a node adds is the same beside whatever others; with them it is not."""
    seen = some_features()
    for pairs in (False, True):
        network = trained(SetValues(learner_kind("dcg").config({**SMALL, "pairs": pairs}), 4))
        with torch.no_grad():
            table = network(seen)
        alone, beside = table[:, 1] - table[:, 0], table[:, 3] - table[:, 2]
        assert torch.allclose(alone, beside, atol=1e-5) != pairs


def test_the_three_differ_in_presets_alone():
    """QMIX mixes monotonically, VDN sums, DCG sums with pairs; a user's option wins."""
    configs = [learner_kind(name).config({}) for name in ("qmix", "vdn", "dcg")]
    known = [(config.mixing, config.pairs) for config in configs]
    assert known == [("monotonic", False), ("sum", False), ("sum", True)]
    assert not learner_kind("dcg").config({"pairs": False}).pairs
