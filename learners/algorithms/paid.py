"""Learning from the delays that were paid, where nothing is known of what comes.

    sum_j w_j G_j(K_j)  ~  sum_j w_j [delay_j / size_j + gamma G'_j(K'_j)]

w_j is the share of block j in the bytes of the library. K are the sets that kept the blocks after a
slot, the delay is that of the next slot as it was played, and K' are the sets that the policy keeps
after that one. G' is the target network, 0 after the last slot. So a slot tells what one joint
decision cost the team and nothing of the others. This is the temporal difference of a decomposed
critic (FACMAC, Peng et al., NeurIPS 2021, arXiv 2003.06709) with the reward of the whole team.
Delays are per byte, in units of the mean time from the cloud.

With credit by block the equation holds for every block j by itself.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from finecast.learners.algorithms.set_values import Rows, set_costs, unit_of
from finecast.learners.learner import TrainedPolicy
from finecast.learners.world.environment import View, keep_turns, packed
from finecast.learners.world.episodes import Slot


def paid_per_byte(slot: Slot, delay: Tensor) -> Tensor:
    """Return (E, J) float32 delays (E, J) in s as units per byte; 0 for padding."""
    return (delay / (slot.size.clamp(min=1.0) * unit_of(slot)[:, None])).float()


def share_of_bytes(slot: Slot) -> Tensor:
    """Return w (E, J) float32, the share of every block in the bytes of the library."""
    return (slot.size / slot.size.sum(dim=1, keepdim=True)).float()


def next_kept(policy: TrainedPolicy, view: View) -> Tensor:
    """Return (E, J) node sets that a policy keeps, all at once or in turn as it plays.

    Parameters
    ----------
    policy
        Actors that have begun the slot, or values of node sets.
    view
        When all is delivered and nobody has decided what to keep.
    """
    view = replace(view, in_turn=policy.in_turn)
    return packed(keep_turns(view, policy, policy.rounds))


def costs_of_kept(network: nn.Module, view: View, kept: Tensor) -> Tensor:
    """Return (E, J) what a critic of node sets says of the sets that keep, per byte; 0 for padding.

    Parameters
    ----------
    network
        From features of all nodes to (R, S).
    view
        When all is delivered and nobody has decided what to keep.
    kept
        (E, J) K.
    """
    rows = Rows.where(view.slot.real)
    cost = set_costs(network, view, None, rows, raw=True).gather(1, rows.pick(kept)[:, None])
    return torch.zeros(kept.shape, device=kept.device).index_put(
        (rows.draw, rows.block), cost[:, 0]
    )


def paid_loss(cost: Tensor, target: Tensor, share: Tensor, credit: str) -> Tensor:
    """Return the error of what a critic said of the kept sets.

    Parameters
    ----------
    cost, target
        (E, J) per byte: what it said, and what was paid and is to come.
    share
        (E, J) w.
    credit
        "team": of the sum over blocks alone; "block": of every block.
    """
    if credit == "team":
        return huber_loss((share * cost).sum(dim=1), (share * target).sum(dim=1))
    return (share * huber_loss(cost, target, reduction="none")).sum(dim=1).mean()
