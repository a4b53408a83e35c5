"""A critic without value decomposition: one network on what all nodes see and do, pooled.

    Q(s, a) = f(state, sum_j w_j mean_n h(what node n sees of block j, a_nj)),   w_j = size_j / sum

a_nj in [0, 1] is whether node n keeps block j. This is the critic of MADDPG (Lowe et al., NeurIPS
2017, arXiv 1706.02275), pooled so that it serves any number of blocks. Its actors follow the
derivative of Q by their relaxed actions, at the actions that were played. Per byte that is a cost
of every node set K of block j to first order,

    G_j(K) = sum_{n in K} dQ/da_nj / w_j
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finecast.learners.algorithms.paid import share_of_bytes
from finecast.learners.networks.action_semantics import perceptron
from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, STATE, Features, features
from finecast.learners.networks.raw_features import raw_features
from finecast.learners.world.environment import View, unpacked


class JointCritic(nn.Module):
    """What a joint decision costs the team.

    Parameters
    ----------
    width
        Of the hidden layers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        inputs = len(OWN) + len(NEIGHBOUR) + len(CLOUD) + 1
        self.pair = perceptron((inputs, width, width))
        self.whole = perceptron((width + len(STATE), width, 1), zero_last=True)

    def forward(self, seen: Features, keep: Tensor, share: Tensor) -> Tensor:
        """Return (E,).

        Parameters
        ----------
        seen
            Features of all nodes.
        keep
            (E, N, J) in [0, 1], a.
        share
            (E, J) of every block in the bytes of the library, w.
        """
        near = seen.neighbour.sum(dim=-2) / max(seen.neighbour.shape[-2], 1)
        pair = torch.relu(self.pair(torch.cat([seen.own, near, seen.cloud, keep[..., None]], -1)))
        pooled = (pair.mean(dim=1) * share[..., None]).sum(dim=1)
        value: Tensor = self.whole(torch.cat([pooled, seen.state], dim=1))
        return value[:, 0]


def joint_cost(critic: JointCritic, view: View, kept: Tensor) -> Tensor:
    """Return (E, J) the team's cost Q per byte, the same for every block; 0 after the last slot.

    Parameters
    ----------
    critic
        The network.
    view
        When all is delivered and nobody has decided what to keep.
    kept
        (E, J) node sets that keep.
    """
    keep = unpacked(kept, view.slot.nodes).float()
    return _team(critic, view, keep)[:, None].expand(kept.shape)


def first_order_costs(critic: JointCritic, view: View, kept: Tensor) -> Tensor:
    """Return (E, J, S) the costs of all node sets to first order at the sets that keep.

    Parameters
    ----------
    critic, view, kept
        As in `joint_cost`.
    """
    keep = unpacked(kept, view.slot.nodes).float().requires_grad_()
    with torch.enable_grad():
        team = _team(critic, view, keep).sum()
    if not team.requires_grad:  # after the last slot
        return torch.zeros((*kept.shape, 1 << view.slot.nodes), device=kept.device)
    (slope,) = torch.autograd.grad(team, keep)
    share = share_of_bytes(view.slot)[:, None]
    per_byte = torch.where(share > 0, slope / share.clamp(min=1e-30), 0.0)
    return torch.einsum("enj,sn->ejs", per_byte, view.slot.member.float())


def _team(critic: JointCritic, view: View, keep: Tensor) -> Tensor:
    """Return (E,) Q, 0 after the last slot."""
    if view.last:
        return torch.zeros(len(keep), device=keep.device)
    seen = raw_features(features(view, None))
    cost: Tensor = critic(seen, keep, share_of_bytes(view.slot))
    return cost
