"""Features of (node, block) pairs: per block, so that one network serves any J and any N.

`features(view, n)` describes every block as node n sees it: its own column, one row for each of the
N - 1 other nodes (in the order of their numbers, without n), one for the cloud, and the state of
the whole system. All are float32 of order one; names are in OWN, NEIGHBOUR, CLOUD, GLOBAL.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from learners.environment import View


@dataclass(frozen=True, eq=False)
class Features:
    """What node n sees (for all nodes: an axis N after E in every field).

    Attributes
    ----------
    own
        (E, J, F_own) float32.
    neighbour
        (E, J, N - 1, F_neighbour) float32.
    cloud
        (E, J, F_cloud) float32.
    state
        (E, F_global) float32 state of the whole system, the same for every node.
    real
        (E, J) bool: not padding.
    may_pull
        (E, J, N + 1) bool: node n may receive the block from this source (row N the cloud).
    may_keep
        (E, J) bool: node n has the block.
    """

    own: Tensor
    neighbour: Tensor
    cloud: Tensor
    state: Tensor
    real: Tensor
    may_pull: Tensor
    may_keep: Tensor


def features(view: View, n: int | None, values: Tensor | None = None) -> Features:
    """Return the features of node n, or of all nodes.

    Parameters
    ----------
    view
        What the nodes see.
    n
        The node; None for all, with an axis N after E.
    values
        (E, C, S) value of every node set after this slot, seconds per byte, from
        `learners.lookahead` (its marginals become features); None leaves them 0.
    """
    raise NotImplementedError
