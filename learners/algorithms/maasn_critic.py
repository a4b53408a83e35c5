"""The critics of MAASN-DA (`finecast.learners.algorithms.maasn`) and what they are judged by."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from finecast.learners.algorithms.joint_critic import JointCritic, joint_cost
from finecast.learners.algorithms.maasn_options import Config
from finecast.learners.algorithms.paid import costs_of_kept
from finecast.learners.algorithms.set_values import Rows, SetCritic
from finecast.learners.world.environment import View


def critic_network(config: Config, nodes: int) -> nn.Module:
    """Return the network of a new critic; only a flat one depends on the number of nodes."""
    if config.critic == "maddpg":
        return JointCritic(config.width)
    return SetCritic(
        mixing=config.mixing,
        action_semantics=config.action_semantics,
        nodes=nodes,
        width=config.width,
        embedding=config.embedding,
        level=config.raw,
    )


def cost_of_kept(critic: nn.Module, view: View, kept: Tensor) -> Tensor:
    """Return (E, J) what a critic says of the sets that keep, per byte."""
    if isinstance(critic, JointCritic):
        return joint_cost(critic, view, kept)
    return costs_of_kept(critic, view, kept)


def block_loss(cost: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean error over bytes of all sets of all blocks.

    Only differences between the sets of a block are compared: what they share is chance.

    Parameters
    ----------
    cost, target
        (R, S) what the critic says, and what it is to say.
    weight
        (R,) byte.
    """
    error = huber_loss(centred(cost), centred(target), reduction="none").mean(dim=1)
    return (weight * error).sum() / weight.sum()


def centred(costs: Tensor) -> Tensor:
    """Return (R, S) costs less their mean over sets."""
    return costs - costs.mean(dim=1, keepdim=True)


def team_loss(
    cost: Tensor, target: Tensor, weight: Tensor, size: Tensor, kept: Tensor, rows: Rows
) -> Tensor:
    """Return the error of the sum over blocks, of the sets that were kept alone.

    Parameters
    ----------
    cost, target, weight
        As in `block_loss`, of `rows`.
    size
        (E, J) of the blocks, byte.
    kept
        (E, J) sets that kept.
    rows
        Which blocks of which draws they are.
    """
    of_kept = rows.pick(kept)[:, None]
    error = (cost.gather(1, of_kept) - target.gather(1, of_kept))[:, 0] * weight
    bytes_ = size.sum(dim=1).float()
    team = torch.zeros_like(bytes_).index_add(0, rows.draw, error) / bytes_
    return huber_loss(team, torch.zeros_like(team))
