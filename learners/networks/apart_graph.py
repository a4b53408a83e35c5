"""A graph network on what a node that decides apart sees: nodes and users exchange messages.

Every node has a graph of its own. Its vertices are the node with its own states of all blocks, the
others with what it sees of them, and the users that it sees. The rounds are those of
`finecast.learners.networks.graph`: an edge between a node and a user has the node's share in the
amplitude that reaches the user as weight, by the newest channels that are seen, and carries the
blocks of the newest request that is seen. What the node's own states have become takes the place of
h in `finecast.learners.networks.apart`.

A user whose requests are hidden carries nothing. Weights are shared: any N, J and K are served,
renumbered nodes have renumbered scores, and the order of the users does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from finecast.learners.networks.apart import ApartNetwork, Seen
from finecast.learners.networks.graph import ROUNDS, Messages
from finecast.learners.world.environment import near_nodes
from finecast.learners.world.episodes import Slot

USER = (
    "is seen to ask for a model now",
    "is seen to have asked for a model, now or last",
    "bytes that it asks for, in mean blocks, compressed",
    "amplitude that reaches it, in mean users, compressed",
    "share of its strongest node in it",
)
"""Features of a user, as a node sees it."""


@dataclass(frozen=True, eq=False)
class CrowdSeen(Seen):
    """What all nodes see, and the users that each sees.

    Attributes
    ----------
    user
        (E, N, K, F_user) float32.
    share
        (E, N, K, N) float32 share of each node in the amplitude that reaches the user.
    asks
        (E, N, K, J) float32, 1 for the blocks of the newest request that the node sees of the user.
    """

    user: Tensor
    share: Tensor
    asks: Tensor


def with_users(seen: Seen, slot: Slot) -> CrowdSeen:
    """Return what all nodes see, with the users that each sees, by its own beliefs."""
    beliefs = slot.beliefs
    assert beliefs is not None
    wants = beliefs.wants.long()
    newest = wants[..., 1]  # (E, N, K)
    draws, nodes, users = newest.shape
    # The blocks that every user asks for, by what each node sees.
    model = newest.clamp(min=0).flatten(1)[..., None].expand(-1, -1, slot.blocks)
    of_model = slot.contains.gather(1, model).view(draws, nodes, users, slot.blocks)
    asks = (of_model & (newest >= 0)[..., None]).float()
    size = slot.size.float()
    mean_size = size.sum(dim=1) / slot.real.sum(dim=1)
    bytes_asked = (asks * size[:, None, None]).sum(dim=3) / mean_size[:, None, None]
    # Which node reaches the user how well.
    total = beliefs.reach.sum(dim=3).clamp(min=1e-30)
    share = beliefs.reach / total[..., None]
    mean_total = total.mean(dim=2, keepdim=True)
    columns = [
        (wants[..., 0] >= 0).float(),
        (newest >= 0).float(),
        bytes_asked.log1p(),
        (total / mean_total).log1p(),
        share.amax(dim=3),
    ]
    of_nodes = {field.name: getattr(seen, field.name) for field in fields(Seen)}
    return CrowdSeen(**of_nodes, user=torch.stack(columns, 3), share=share, asks=asks)


class GraphApartNetwork(ApartNetwork):
    """Residual of the saving after messages between nodes and users, with a memory.

    Parameters
    ----------
    width, embedding, memory, bonus
        As in `finecast.learners.networks.apart.ApartNetwork`.
    """

    def __init__(
        self, width: int = 64, embedding: int = 16, memory: int = 32, *, bonus: float = 0.2
    ) -> None:
        super().__init__(width, embedding, memory, bonus=bonus)
        self.user = nn.Linear(len(USER), width)
        self.other = nn.Linear(embedding, width)
        self.rounds = nn.ModuleList(Messages(width, embedding) for _ in range(ROUNDS))

    def heard(self, seen: Seen, h: Tensor, others: Tensor) -> Tensor:
        """Return the node's own states (E, N, J, width) after messages in its graph."""
        assert isinstance(seen, CrowdSeen)
        draws, nodes, blocks, width = h.shape
        near, itself = near_nodes(nodes, h.device), torch.arange(nodes, device=h.device)
        # The vertices of node n's graph: at n its own states, at n' what it sees of n'.
        vertex = h.new_zeros((draws, nodes, nodes, blocks, width))
        edge = others.new_zeros((draws, nodes, nodes, blocks, others.shape[-1]))
        vertex[:, itself, itself] = h
        vertex[:, itself[:, None], near] = torch.relu(self.other(others)).transpose(2, 3)
        edge[:, itself[:, None], near] = others.transpose(2, 3)
        # Messages: every graph is a draw of its own.
        between = edge[:, :, near].transpose(3, 4).flatten(0, 1)  # (E N, N, J, N - 1, d)
        carries = (seen.share[..., None] * seen.asks[:, :, :, None]).flatten(0, 1)
        node, user = vertex.flatten(0, 1), torch.relu(self.user(seen.user)).flatten(0, 1)
        for messages in self.rounds:
            node, user = messages(node, user, carries, between)
        of_each = node.view(draws, nodes, nodes, blocks, width)
        return of_each[:, itself, itself]
