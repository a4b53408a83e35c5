"""Values for PPO: a critic over the dynamic programme on expected tables, and GAE advantages.

The critic learns what the expected tables (`finecast.learners.world.lookahead`) leave out. It sees
what all nodes see, or every node what it sees itself (Yu et al., arXiv 2103.01955; de Witt et al.,
arXiv 2011.09533). Advantages are generalised advantage estimates (Schulman et al., ICLR 2016, arXiv
1506.02438) over stages that take turns: pull, keep, ..., pull.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finecast.learners.algorithms.set_values import unit_of
from finecast.learners.networks.action_semantics import over_blocks, perceptron
from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, STATE, Features
from finecast.learners.world.environment import lookup
from finecast.learners.world.environment import rows as rows_of_sets
from finecast.learners.world.episodes import Slot
from finecast.learners.world.lookahead import Lookahead


class Critic(nn.Module):
    """Values of all blocks over the base, normalised, from what all nodes see.

    Parameters
    ----------
    centralised
        One value from what all nodes see; else one for every node from what it sees.
    width
        Of the hidden layers.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, centralised: bool, width: int) -> None:
        super().__init__()
        self.centralised = centralised
        self.state = nn.Linear(len(STATE), width)
        self.node = nn.Linear(len(OWN) + len(NEIGHBOUR) + len(CLOUD), width)
        self.rest = perceptron((width, width, 1), zero_last=True)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, seen: Features) -> Tensor:
        """Return (P, N, J), or (P, 1, J) if centralised, from features of all nodes."""
        near = seen.neighbour.sum(dim=-2) / max(seen.neighbour.shape[-2], 1)
        own = self.node(torch.cat([seen.own, near, seen.cloud], dim=-1))
        hidden = torch.relu(own + over_blocks(self.state(seen.state), own))
        if self.centralised:
            hidden = hidden.mean(dim=1, keepdim=True)
        value: Tensor = self.rest(hidden)[..., 0]
        return value

    def follow(self, values: Tensor, weight: float = 0.1) -> None:
        """Let the scale follow that of values, which `forward` is to return normalised."""
        self.mean.lerp_(values.mean(), weight)
        self.spread.lerp_(values.std().clamp(min=1e-3), weight)


def expected_cost(slot: Slot, look: Lookahead, cached: Tensor) -> Tensor:
    """Return (E, J) cost of this slot and the coming ones by the tables, in units per byte.

    min over l of [tau_l(X) + broadcast(Q_l(X)) + A(Q_l(X))] if the block is needed, else A(X)

    Parameters
    ----------
    slot, look
        The slot, and its lookahead.
    cached
        (E, J) X.
    """
    sender, kind = rows_of_sets(slot.chain_sender, cached), slot.kind[..., None]
    air = lookup(slot.broadcast, slot.group[..., None], sender)
    needed = rows_of_sets(slot.chain_time, cached) + air + lookup(look.after, kind, sender)
    cost = torch.where(slot.needed, needed.amin(dim=2), lookup(look.after, slot.kind, cached))
    return (cost / unit_of(slot)[:, None]).float()


def advantages(reward: Tensor, value: Tensor, discount: float, gae_lambda: float) -> Tensor:
    """Return generalised advantage estimates of all stages, of the shape of `value`.

    A_s = delta_s + gamma_s lambda A_{s+1},   delta_s = r_s + gamma_s V_{s+1} - V_s

    gamma_s is the discount after a stage of keeping, which ends a slot, and 1 after one of pulling
    gamma_s is the discount after a stage of keeping, which ends a slot, and 1 after one of pulling.

    Parameters
    ----------
    reward, value
        (S, ...) of stages that take turns: pull, keep, ..., pull; shapes that broadcast.
    discount, gae_lambda
        gamma and lambda.
    """
    estimates = torch.zeros_like(value)
    advantage, next_value = torch.zeros_like(value[0]), torch.zeros_like(value[0])
    for s in reversed(range(len(value))):
        gamma = discount if s % 2 else 1.0
        advantage = reward[s] + gamma * next_value - value[s] + gamma * gae_lambda * advantage
        next_value = value[s]
        estimates[s] = advantage
    return estimates
