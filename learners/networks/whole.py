"""Networks that look at all nodes of a draw together, and score single (node, block) cells.

Action semantics alone scores every cell from what its node sees of the block. The networks here let
the nodes tell each other what they see first: by attention
(`finecast.learners.networks.sequence`), or over a graph of nodes and users
(`finecast.learners.networks.graph`). So they are trained on whole draws.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from finecast.learners.networks.action_semantics import ActionSemanticsNetwork, Embedded, Scores
from finecast.learners.networks.features import Features


@dataclass(frozen=True, eq=False)
class Cells:
    """Some (draw, node, block) cells of what was played.

    Attributes
    ----------
    draw, node, block
        (R,) int64.
    """

    draw: Tensor
    node: Tensor
    block: Tensor

    def pick(self, values: Tensor) -> Tensor:
        """Return (R, ...) of an array (P, N, J, ...)."""
        return values[self.draw, self.node, self.block]

    def seen(self, seen: Features) -> Features:
        """Return what the nodes of the cells see of the blocks, from the features of all nodes."""
        return Features(
            own=self.pick(seen.own),
            neighbour=self.pick(seen.neighbour),
            cloud=self.pick(seen.cloud),
            state=seen.state[self.draw],
            real=seen.real[self.draw, self.block],
            may_pull=self.pick(seen.may_pull),
            may_keep=self.pick(seen.may_keep),
        )


class WholeNetwork(ActionSemanticsNetwork):
    """Scores by action semantics, of nodes that have told each other what they see."""

    def at(self, embedded: Embedded, cells: Cells, company: Tensor) -> Scores:
        """Return the scores of some cells.

        Parameters
        ----------
        embedded
            What `embed` returned, of all nodes.
        cells
            R of them.
        company
            (R, N - 1) what the other nodes have decided. Here the scores do not depend on it: who
            asks adds the scores `company`.
        """
        return self.score(
            Embedded(
                cells.pick(embedded.whole),
                cells.pick(embedded.others),
                cells.pick(embedded.cloud),
            )
        )
