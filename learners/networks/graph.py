"""A graph network over nodes and users: a policy that is equivariant to their order.

Vertices are the nodes, with a state for every block, and the users. An edge between node n and user
k has weight s_kn, the node's share in the amplitude that reaches the user; it carries the blocks
that the user asks for, J_k. An edge between two nodes carries link times and caches. In each round

    u_k  <- norm(u_k + relu(A u_k + B mean over j in J_k of sum over n of s_kn h_nj))
    h_nj <- norm(h_nj + relu(C h_nj + sum over k that ask for j of s_kn D u_k
                             + mean over n' of relu(E h_n'j + F e_nn'j)))

h_nj begins as what node n sees of block j, e_nn'j as what it sees of neighbour n', both as in
`finecast.learners.networks.action_semantics`, which also makes the scores of the last h. Message
passing is that of Gilmer et al. (ICML 2017, arXiv 1704.01212). Weights are shared over vertices, so
any N, J and K are served; another order of the nodes gives the scores in that order, another order
of the users the same scores.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from finecast.learners.networks.action_semantics import Embedded
from finecast.learners.networks.features import Features
from finecast.learners.networks.observer import Observer
from finecast.learners.networks.whole import WholeNetwork
from finecast.learners.world.environment import View, near_nodes

ROUNDS = 2
"""Rounds of messages."""

USER = (
    "asks for a model",
    "bytes that it asks for, in mean blocks, compressed",
    "amplitude that reaches it, in mean users, compressed",
    "share of its strongest node in it",
)
"""Features of a user."""


@dataclass(frozen=True, eq=False)
class CrowdFeatures(Features):
    """What the nodes see, and the users.

    Attributes
    ----------
    user
        (E, K, F_user) float32.
    share
        (E, K, N) float32 share of each node in the amplitude that reaches the user.
    asks
        (E, K, J) float32, 1 for the blocks of the model that the user asks for.
    """

    user: Tensor
    share: Tensor
    asks: Tensor


class CrowdObserver(Observer):
    """Makes the features of views, with the users."""

    def __call__(self, view: View) -> CrowdFeatures:
        """Return the features of all nodes."""
        seen, slot = super().__call__(view), view.slot
        active = slot.requests >= 0
        model = slot.requests.clamp(min=0)[..., None].expand(-1, -1, slot.blocks)
        asks = (slot.contains.gather(1, model) & active[..., None]).float()
        total = slot.reach.sum(dim=2).float()
        share = slot.reach.float() / total.clamp(min=1e-30)[..., None]
        size = slot.size.float()
        mean_size = size.sum(dim=1) / slot.real.sum(dim=1)
        bytes_asked = (asks @ size[..., None])[..., 0] / mean_size[:, None]
        mean_total = total.mean(dim=1, keepdim=True).clamp(min=1e-30)
        columns = [
            active.float(),
            bytes_asked.log1p(),
            (total / mean_total).log1p(),
            share.amax(dim=2),
        ]
        of_nodes = {field.name: getattr(seen, field.name) for field in fields(seen)}
        return CrowdFeatures(**of_nodes, user=torch.stack(columns, 2), share=share, asks=asks)


class Messages(nn.Module):
    """One round of messages.

    Parameters
    ----------
    width
        Of the states of nodes and users.
    embedding
        Of what a node sees of another.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.user = nn.Linear(width, width)
        self.user_hears = nn.Linear(width, width, bias=False)
        self.node = nn.Linear(width, width)
        self.node_hears = nn.Linear(width, width, bias=False)
        self.neighbour = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(embedding, width)
        self.user_norm = nn.LayerNorm(width)
        self.node_norm = nn.LayerNorm(width)

    def forward(
        self, node: Tensor, user: Tensor, edge: Tensor, others: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the next states of nodes and users.

        Parameters
        ----------
        node
            (E, N, J, width).
        user
            (E, K, width).
        edge
            (E, K, N, J) weights.
        others
            (E, N, J, N - 1, d) what nodes see of each other.
        """
        between = edge.flatten(2)  # (E, K, N J)
        asked = edge.sum(dim=(2, 3)).clamp(min=1.0)[..., None]
        heard = between @ node.flatten(1, 2) / asked
        user = self.user_norm(user + torch.relu(self.user(user) + self.user_hears(heard)))
        told = (between.transpose(1, 2) @ self.node_hears(user)).view_as(node)
        # (E, N, N - 1, J, width), in the order of the neighbours
        near = self.neighbour(node)[:, near_nodes(node.shape[1], node.device)]
        told = told + torch.relu(near.transpose(2, 3) + self.edge(others)).sum(dim=3) / max(
            others.shape[3], 1
        )
        return self.node_norm(node + torch.relu(self.node(node) + told)), user


class GraphNetwork(WholeNetwork):
    """Scores after messages between nodes and users.

    Parameters
    ----------
    width, embedding, zero_last
        As in `finecast.learners.networks.action_semantics.ActionSemanticsNetwork`.
    """

    def __init__(self, width: int = 64, embedding: int = 32, *, zero_last: bool = False) -> None:
        super().__init__(width, embedding, zero_last=zero_last)
        self.user = nn.Linear(len(USER), width)
        self.rounds = nn.ModuleList(Messages(width, embedding) for _ in range(ROUNDS))

    def embed(self, seen: Features) -> Embedded:
        """Return what the scores follow from, from features of all nodes and users."""
        assert isinstance(seen, CrowdFeatures)
        embedded = super().embed(seen)
        node, user = embedded.whole, torch.relu(self.user(seen.user))
        edge = seen.share[..., None] * seen.asks[:, :, None]
        for messages in self.rounds:
            node, user = messages(node, user, edge, embedded.others)
        return replace(embedded, whole=node)
