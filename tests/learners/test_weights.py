"""Weights: what follows, what is initialised, and parts of a checkpoint by name."""

from __future__ import annotations

import torch
from torch import nn

from finecast.learners.weights import follow, initialised, part_of


def constant(value: float) -> nn.Linear:
    """A layer whose weights are all equal."""
    layer = nn.Linear(2, 1)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


def test_follow_goes_a_share_of_the_way():
    """A quarter of the way from 1 to 5 is 2; the network that is followed stays."""
    slow, fast = constant(1.0), constant(5.0)
    follow(slow, fast, 0.25)
    assert all((parameter == 2.0).all() for parameter in slow.parameters())
    assert all((parameter == 5.0).all() for parameter in fast.parameters())


def test_first_weights_depend_on_the_seed_alone():
    """Whatever was drawn before; and the global generator is left as it was."""
    torch.manual_seed(1)
    first = initialised(7, lambda: nn.Linear(3, 3))
    drawn = torch.rand(())
    second = initialised(7, lambda: nn.Linear(3, 3))
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, initialised(8, lambda: nn.Linear(3, 3)).weight)
    torch.manual_seed(1)
    assert torch.rand(()) == drawn


def test_a_part_is_what_stands_before_the_mark():
    """The part "policy adam" is not "policy"; names lose that of the part alone."""
    tensors = {"policy/own/w": torch.ones(1), "policy adam/own/w": torch.zeros(1)}
    assert list(part_of(tensors, "policy")) == ["own/w"]
