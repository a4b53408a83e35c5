"""A sequence model over nodes: an encoder of what they see, a decoder of what they decide in turn.

    z_1, ..., z_N = Encoder(h_1, ..., h_N)                        attention over the nodes
    y_n           = Decoder(z_n ; z_1 + e(a_1), ..., z_N + e(a_N))   a_m: what node m has decided
    scores of node n from y_n, by action semantics

h_n is what node n sees of a block. a_m says whether m receives or keeps the block, does not, or has
not decided yet; e is an embedding of the three. So the joint policy is a product of conditional
ones, pi(a_1) pi(a_2 | a_1) ..., as in the Multi-Agent Transformer (Wen et al., NeurIPS 2022, arXiv
2205.14953) and in Sable (Mahjoub et al., ICML 2025, PMLR 267:42579). Where those have one token for
a node, here a node has one for every block: blocks do not attend to each other, they meet in the
features and in the projection. There is no number of the node in a token, so any N, J and K are
served.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from finecast.learners.networks.action_semantics import Embedded, Scores
from finecast.learners.networks.features import Features
from finecast.learners.networks.whole import Cells, WholeNetwork
from finecast.learners.world.environment import near_nodes

HEADS = 4
"""Heads of the attention; they share the width."""


class SequenceNetwork(WholeNetwork):
    """Scores given what the nodes before have decided.

    Parameters
    ----------
    width
        Of a token, a multiple of `HEADS`.
    embedding, zero_last
        As in `finecast.learners.networks.action_semantics.ActionSemanticsNetwork`.
    """

    def __init__(self, width: int = 64, embedding: int = 32, *, zero_last: bool = False) -> None:
        super().__init__(width, embedding, zero_last=zero_last)
        self.encoder = nn.TransformerEncoderLayer(width, HEADS, width, 0.0, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(width, HEADS, width, 0.0, batch_first=True)
        self.decision = nn.Embedding(3, width)

    def embed(self, seen: Features) -> Embedded:
        """Return what the scores follow from, from features of all nodes."""
        embedded = super().embed(seen)
        tokens = embedded.whole.transpose(1, 2)  # (E, J, N, width)
        encoded: Tensor = self.encoder(tokens.flatten(0, 1))
        return replace(embedded, whole=encoded.view_as(tokens).transpose(1, 2))

    def at(self, embedded: Embedded, cells: Cells, company: Tensor) -> Scores:
        """Return the scores of some cells given what the other nodes have decided.

        Parameters
        ----------
        embedded
            What `embed` returned, of all nodes.
        cells
            R of them.
        company
            (R, N - 1) of each other node: 1 it receives or keeps the block, -1 it does not, 0 it
            has not decided. The scores `company` are 0: what it changes is in the others.
        """
        nodes = company.shape[1] + 1
        itself = torch.arange(nodes, device=company.device)[:, None]
        order = torch.cat([near_nodes(nodes, company.device), itself], dim=1)[cells.node]
        tokens = embedded.whole[cells.draw[:, None], order, cells.block[:, None]]  # (R, N, width)
        tokens = tokens + self.decision(pad(company, (0, 1)).long() + 1)
        decoded = self.decoder(tokens[:, -1:], tokens)[:, 0]
        others, cloud = cells.pick(embedded.others), cells.pick(embedded.cloud)
        scores = self.score(Embedded(decoded, others, cloud))
        return replace(scores, company=torch.zeros_like(scores.company))
