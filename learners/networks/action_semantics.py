"""Networks over (node, block) pairs: action semantics, and the flat network without.

    h    = environment branch(own, mean and max over n' of e_n', e_0, state)
    e_n' = interaction branch(what node n sees of neighbour n'),  e_0 = cloud branch(the cloud)
    score(pull from n') = <A h, e_n'> / sqrt(d),  from the cloud: <A_0 h, e_0> / sqrt(d)
    score(pull nothing) = a . h + sum over n' that receive <A_1 h, e_n'> / sqrt(d)
    score(keep)         = b . h + sum over n' that keep    <B h, e_n'> / sqrt(d)

The sums are what the decisions of other nodes change: in turn, each node sees what those before it
chose, and one pass of the network serves all turns. An action that concerns another node is scored
by the inner product of what the node sees as a whole and what it sees of that other node; one that
concerns the node alone, by the first alone (Wang et al., Action Semantics Network, ICLR 2020, arXiv
1907.11461; the cloud is a second kind of entity).
All weights are shared over blocks, neighbours and nodes, so one network serves any J and any N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, STATE, Features


@dataclass(frozen=True, eq=False)
class Scores:
    """What a network says of every block at node n (for all nodes: an axis N after E).

    Attributes
    ----------
    nothing
        (E, J) score of pulling nothing.
    source
        (E, J, N - 1 + 1) score of pulling from each other node, in the order of the neighbour
        features, and last from the cloud.
    keep
        (E, J) score of keeping.
    company
        (E, J, N - 1, 2) what is added to the scores of pulling nothing and of keeping for each
        other node that has decided to receive, and to keep.
    """

    nothing: Tensor
    source: Tensor
    keep: Tensor
    company: Tensor


@dataclass(frozen=True, eq=False)
class Embedded:
    """What a network makes of what it sees, before it scores: leading axes as in `Features`.

    Attributes
    ----------
    whole
        (..., J, width) h, of what the node sees as a whole.
    others
        (..., J, N - 1, d) of what it sees of each other node.
    cloud
        (..., J, d) of what it sees of the cloud.
    """

    whole: Tensor
    others: Tensor
    cloud: Tensor


def perceptron(sizes: tuple[int, ...], *, zero_last: bool = False) -> nn.Sequential:
    """Return linear layers with ReLU in between.

    Parameters
    ----------
    sizes
        Of the input, the hidden layers and the output.
    zero_last
        The last layer starts at 0.
    """
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(inputs, outputs)] + [nn.ReLU()] * (i < len(sizes) - 2)
    last = layers[-1]
    if zero_last and isinstance(last, nn.Linear):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers)


class ActionSemanticsNetwork(nn.Module):
    """Scores by action semantics.

    Parameters
    ----------
    width
        Of the hidden layers.
    embedding
        d, size of the embeddings.
    zero_last
        The heads start at 0, so that all scores are 0: for learning a residual.
    """

    def __init__(self, width: int = 64, embedding: int = 32, *, zero_last: bool = False) -> None:
        super().__init__()
        self.neighbour = perceptron((len(NEIGHBOUR), embedding, embedding))
        self.cloud = perceptron((len(CLOUD), embedding, embedding))
        self.state = nn.Linear(len(STATE), width)
        self.own = nn.Linear(len(OWN) + 3 * embedding, width)
        self.hidden = nn.Linear(width, width)
        self.alone = nn.Linear(width, 2)
        self.meets = nn.Linear(width, 4 * embedding, bias=False)
        if zero_last:
            for head in (self.alone, self.meets):
                for parameter in head.parameters():
                    nn.init.zeros_(parameter)

    def forward(self, seen: Features) -> Scores:
        """Return the scores of all blocks."""
        return self.score(self.embed(seen))

    def embed(self, seen: Features) -> Embedded:
        """Return what the scores follow from."""
        others = self.neighbour(seen.neighbour)
        cloud = self.cloud(seen.cloud)
        own = self.own(torch.cat([seen.own, pooled(others), cloud], dim=-1))
        h = torch.relu(self.hidden(torch.relu(own + over_blocks(self.state(seen.state), own))))
        return Embedded(h, others, cloud)

    def score(self, embedded: Embedded) -> Scores:
        """Return the scores that follow."""
        h, others, cloud = embedded.whole, embedded.others, embedded.cloud
        meets = (self.meets(h) / math.sqrt(cloud.shape[-1])).unflatten(-1, (4, -1))
        with_others = others @ meets[..., :3, :].transpose(-1, -2)  # (..., J, N - 1, 3)
        from_cloud = (meets[..., 3, :] * cloud).sum(dim=-1, keepdim=True)
        source = torch.cat([with_others[..., 0], from_cloud], dim=-1)
        nothing, keep = self.alone(h).unbind(dim=-1)
        return Scores(nothing, source, keep, with_others[..., 1:])


class FlatNetwork(nn.Module):
    """The ablation: one network on all that the node sees, side by side, for a fixed N.

    Parameters
    ----------
    nodes
        N.
    width
        Of the hidden layers.
    zero_last
        The last layer starts at 0.
    """

    def __init__(self, nodes: int, width: int = 64, *, zero_last: bool = False) -> None:
        super().__init__()
        self.nodes = nodes
        inputs = len(OWN) + (nodes - 1) * len(NEIGHBOUR) + len(CLOUD)
        self.state = nn.Linear(len(STATE), width)
        self.own = nn.Linear(inputs, width)
        self.rest = perceptron((width, width, 3 * nodes), zero_last=zero_last)

    def forward(self, seen: Features) -> Scores:
        """Return the scores of all blocks.

        Raises
        ------
        ValueError
            N is not the one it was made for.
        """
        nodes = seen.neighbour.shape[-2] + 1
        if nodes != self.nodes:
            raise ValueError(
                f"nodes: {nodes} are not allowed, this network without action semantics was "
                f"trained on {self.nodes} and serves no other number"
            )
        own = self.own(
            torch.cat([seen.own, seen.neighbour.flatten(start_dim=-2), seen.cloud], dim=-1)
        )
        out = self.rest(torch.relu(own + over_blocks(self.state(seen.state), own)))
        alone, company = out.split([2 + nodes, 2 * (nodes - 1)], dim=-1)
        return Scores(
            alone[..., 0], alone[..., 2:], alone[..., 1], company.unflatten(-1, (nodes - 1, 2))
        )


def action_network(
    *,
    action_semantics: bool,
    nodes: int,
    width: int = 64,
    embedding: int = 32,
    zero_last: bool = False,
) -> nn.Module:
    """Return the network with or without action semantics; its forward is Features -> Scores.

    Parameters
    ----------
    action_semantics
        Which of the two.
    nodes
        N, which only the flat network depends on.
    width, embedding, zero_last
        As in `ActionSemanticsNetwork`.
    """
    if action_semantics:
        return ActionSemanticsNetwork(width, embedding, zero_last=zero_last)
    return FlatNetwork(nodes, width, zero_last=zero_last)


def over_blocks(state: Tensor, blocks: Tensor) -> Tensor:
    """Return (E, F) of the whole system as it adds to (E, J, F) or (E, N, J, F)."""
    return state.reshape(len(state), *([1] * (blocks.dim() - 2)), state.shape[-1])


def pooled(others: Tensor) -> Tensor:
    """Return (..., 2 d) mean and maximum over the other nodes (..., N - 1, d); 0 without any."""
    if not others.shape[-2]:
        return others.new_zeros((*others.shape[:-2], 2 * others.shape[-1]))
    return torch.cat([others.mean(dim=-2), others.amax(dim=-2)], dim=-1)
