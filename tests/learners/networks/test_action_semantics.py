"""Networks: action semantics serve any number of nodes, flat ones only their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finecast.learners.algorithms.set_values import SetCritic
from finecast.learners.networks.action_semantics import ActionSemanticsNetwork, FlatNetwork
from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, STATE, Features
from finecast.learners.networks.mixers import MonotonicMixer


def seen(nodes: int, rows: int = 5, seed: int = 0) -> Features:
    """Random features of some (node, block) pairs."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    yes = torch.ones(rows, dtype=torch.bool)
    return Features(
        own=normal(rows, len(OWN)),
        neighbour=normal(rows, nodes - 1, len(NEIGHBOUR)),
        cloud=normal(rows, len(CLOUD)),
        state=normal(rows, len(STATE)),
        real=yes,
        may_pull=yes[:, None].expand(-1, nodes + 1),
        may_keep=yes,
    )


def test_one_network_serves_any_number_of_nodes():
    """The weights do not depend on N; there is a score for every source."""
    torch.manual_seed(0)
    network = ActionSemanticsNetwork()
    for nodes in (1, 4, 6):
        assert network(seen(nodes)).source.shape == (5, nodes)


def test_neighbours_are_interchangeable():
    """Swapping what is seen of two neighbours swaps their scores and nothing else."""
    torch.manual_seed(0)
    network, given = ActionSemanticsNetwork(), seen(4)
    swapped = replace(given, neighbour=given.neighbour[:, [1, 0, 2]])
    first, second = network(given), network(swapped)
    torch.testing.assert_close(first.source[:, [1, 0, 2, 3]], second.source)
    torch.testing.assert_close(first.keep, second.keep)
    torch.testing.assert_close(first.nothing, second.nothing)


def test_score_of_a_neighbour_is_an_inner_product():
    """With the embedding of a neighbour at zero, pulling from it scores exactly zero."""
    torch.manual_seed(0)
    network = ActionSemanticsNetwork()
    for parameter in network.neighbour.parameters():
        torch.nn.init.zeros_(parameter)
    scores = network(seen(4))
    assert (scores.source[:, :3] == 0).all()
    assert (scores.source[:, 3] != 0).all()


def test_flat_network_refuses_other_numbers_of_nodes():
    """The ablation is made for one N and says so in one line."""
    network = FlatNetwork(4)
    assert network(seen(4)).source.shape == (5, 4)
    with pytest.raises(ValueError, match=r"nodes: 6 are not allowed.*trained on 4") as error:
        network(seen(6))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "zero", [ActionSemanticsNetwork(zero_last=True), FlatNetwork(3, zero_last=True)]
)
def test_residual_starts_at_zero(zero):
    """With zeroed heads all scores are 0, so that a policy starts where its start says."""
    scores = zero(seen(3))
    assert not scores.source.any()
    assert not scores.keep.any()
    assert not scores.nothing.any()


def test_monotonic_mixer_never_falls():
    """Raising the value of one node never lowers the mixed one, and all zeros mix to 0."""
    torch.manual_seed(1)
    mixer = MonotonicMixer(7)
    state = torch.randn(20, 7)
    values = torch.randn(20, 8, 3)
    raised = values.clone()
    raised[:, :, 1] += torch.rand(20, 8) * 3
    assert (mixer(raised, state) >= mixer(values, state)).all()
    assert mixer(torch.zeros_like(values), state).abs().max() < 1e-6


@pytest.mark.parametrize("mixing", ["monotonic", "sum"])
def test_critic_gives_every_node_set(mixing):
    """By the sum, cost over the base is k.a + k'Bk for every set k, checked set by set."""
    torch.manual_seed(2)
    nodes, rows = 3, 4
    critic = SetCritic(mixing=mixing)
    for head in (critic.alone, critic.meets):
        torch.nn.init.normal_(head.weight)
    one = seen(nodes, rows * nodes)
    given = Features(
        own=one.own.reshape(rows, nodes, -1),
        neighbour=one.neighbour.reshape(rows, nodes, nodes - 1, -1),
        cloud=one.cloud.reshape(rows, nodes, -1),
        state=one.state[:rows],
        real=one.real[:rows],
        may_pull=one.may_pull.reshape(rows, nodes, -1),
        may_keep=one.may_keep.reshape(rows, nodes),
    )
    cost = critic(given)
    assert cost.shape == (rows, 8)
    assert cost[:, 0].abs().max() < 1e-6  # nobody keeps: nothing over the base
    if mixing == "sum":
        # Effects of pairs: f(nm) - f(n) - f(m) does not depend on who else keeps.
        alone = cost[:, 1] + cost[:, 2] + cost[:, 4]
        pairs = (cost[:, 3] - cost[:, 1] - cost[:, 2]) + (cost[:, 5] - cost[:, 1] - cost[:, 4])
        pairs = pairs + (cost[:, 6] - cost[:, 2] - cost[:, 4])
        torch.testing.assert_close(cost[:, 7], alone + pairs)
        assert pairs.abs().min() > 1e-4
