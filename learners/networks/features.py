"""Features of (node, block) pairs: per block, so that one network serves any J and any N.

`features(view, n)` describes every block as node n sees it: its own column, one row for each of the
N - 1 other nodes (in the order of their numbers, without n), one for the cloud, and the state of
the whole system. All are float32 of order one; their names are OWN, NEIGHBOUR, CLOUD and STATE.

Times are in units of what a byte costs now: its mean time from the cloud and, sent by all nodes, on
the air. Times and counts that have no upper limit are compressed by log(1 + x). What does not
depend on the decisions of the slot is computed once per slot
(`finecast.learners.networks.feature_basis`); it comes first in every list of names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor

from finecast.learners.networks.feature_basis import (
    CLOUD_FIXED,
    COST_COLUMN,
    NEIGHBOUR_FIXED,
    OWN_FIXED,
    STATE_FIXED,
    Basis,
    basis_of,
)
from finecast.learners.world.environment import View
from finecast.learners.world.lookahead import Lookahead

OWN = (
    *OWN_FIXED,
    "here now",
    "other nodes that count as holders, share",
    "no other holder",
    "time on the air that joining saves now",
    "that less the time to fetch it",
    "saved by a copy here, coming slot 1",
    "saved by a copy here, coming slot 2",
    "saved by a copy here, coming slot 3",
    "saved by a copy here, mean of the coming slots",
    "lookahead: saved by keeping, before rent",
    "lookahead: saved after this slot, rent paid",
    "lookahead: saved by keeping less the rent of the next slot",
    "bytes of what saves more in the next slot, in storages",
    "saved in the next slot less what the first byte out of the storage saves",
)
"""Features of a block at the node."""

NEIGHBOUR = (
    *NEIGHBOUR_FIXED,
    "counts as a holder",
    "saved by its copy in the next slot",
    "has decided",
    "fill of its storage",
)
"""Features of a block at another node."""

CLOUD = (*CLOUD_FIXED, "time on the air that joining saves less the time from the cloud")
"""Features of a block at the cloud."""

STATE = (
    *STATE_FIXED,
    "keeping, else pulling",
    "share of nodes that have decided",
    "fill of the storages, mean",
    "bytes that somebody has, share of the library",
    "copies per byte of the library",
    "expected delay per byte of the library in the next slot, with what is here",
)
"""State of the whole system."""


@dataclass(frozen=True, eq=False)
class Features:
    """What node n sees (for all nodes: an axis N after E in every field but `state` and `real`).

    Attributes
    ----------
    own
        (E, J, F_own) float32.
    neighbour
        (E, J, N - 1, F_neighbour) float32.
    cloud
        (E, J, F_cloud) float32.
    state
        (E, F_state) float32 state of the whole system, the same for every node.
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

    def select(self, index: Tensor) -> Self:
        """Return some of the rows along the first axis."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))


SomeFeatures = TypeVar("SomeFeatures", bound=Features)


def joined_features(parts: Sequence[SomeFeatures]) -> SomeFeatures:
    """Return the rows of all parts, of one kind, along the first axis."""
    names = (field.name for field in fields(parts[0]))
    return type(parts[0])(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def features(
    view: View, n: int | None, values: Lookahead | None = None, basis: Basis | None = None
) -> Features:
    """Return the features of node n, or of all nodes.

    Parameters
    ----------
    view
        What the nodes see.
    n
        The node; None for all, with an axis N after E.
    values
        Lookahead of the slot, whose marginals become features; None leaves them 0.
    basis
        `basis_of(view, values)`, if it is already known for the slot.
    """
    slot = view.slot
    basis = basis_of(view, values) if basis is None else basis
    me = slice(None) if n is None else slice(n, n + 1)  # M nodes: all, or one
    bit = basis.bit[me]  # (M, 1)
    held_here = (view.held[:, None] & bit) != 0  # (E, M, J)
    holders = view.holders[:, None]
    others = holders & ~bit

    # What a copy at the node changes, given the other holders: now on the air, and later.
    without_and_with = torch.stack([others, others | bit])
    on_air = basis.at_group(without_and_with)
    gain = on_air[0] - on_air[1]
    worth = basis.at_kind(basis.worth, without_and_with)
    saved = worth[0] - worth[1]  # (E, M, J, H + 3)
    count = basis.count[others]
    changing = [
        held_here.float(),
        count * (1.0 / slot.nodes),
        (count == 0).float(),
        gain,
        gain - basis.fetch[:, me],
        *saved.unbind(dim=3),
        saved[..., COST_COLUMN] - basis.price[:, me, None],
        *_ranked(view, basis, me, saved[..., 0], held_here),
    ]
    own = torch.cat([basis.own[:, me], torch.stack(changing, dim=3)], dim=3)

    fill = _fill(view, basis)
    changing_nearby = _of_all_nodes(view, basis, fill)[:, basis.near[me]].transpose(2, 3)
    neighbour = torch.cat([basis.neighbour[:, me], changing_nearby], dim=4)
    gain_by_cloud = (gain - basis.cloud_time[:, me, None])[..., None]
    cloud = torch.cat([basis.cloud[:, me], gain_by_cloud], dim=3)
    if basis.padded:  # padding would show otherwise: a block of size 0 has features too
        own = own * slot.real[:, None, :, None]
        neighbour = neighbour * slot.real[:, None, :, None, None]
        cloud = cloud * slot.real[:, None, :, None]

    may_pull, may_keep = basis.may_pull[:, me], held_here & slot.real[:, None]
    state = _state(view, basis, fill)
    if n is not None:
        own, neighbour, cloud = own[:, 0], neighbour[:, 0], cloud[:, 0]
        may_pull, may_keep = may_pull[:, 0], may_keep[:, 0]
    return Features(own, neighbour, cloud, state, slot.real, may_pull, may_keep)


def _of_all_nodes(view: View, basis: Basis, fill: Tensor) -> Tensor:
    """Return (E, N, J, .), what NEIGHBOUR adds to NEIGHBOUR_FIXED, of every node.

    Parameters
    ----------
    view, basis
        As in `features`.
    fill
        (E, N), from `_fill`.
    """
    nodes, holders = view.slot.nodes, view.holders[:, None]
    worth = basis.at_kind(
        basis.worth[:, :1], torch.stack([holders & ~basis.bit, holders | basis.bit])
    )
    saved = (worth[0] - worth[1])[..., 0]
    of_block = torch.stack([((holders & basis.bit) != 0).float(), saved], dim=3)
    decided = torch.tensor([view.decided >> m & 1 for m in range(nodes)], device=fill.device)
    of_node = torch.stack([decided.expand_as(fill), fill], dim=2)[:, :, None]
    return torch.cat([of_block, of_node.expand(-1, -1, view.slot.blocks, -1)], dim=3)


def _ranked(
    view: View, basis: Basis, me: slice, saved: Tensor, held_here: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (E, M, J) the storages filled by what saves more, and the saving above the margin.

    The margin is the saving of the first block that does not fit. Storage is claimed by what is
    here and, while the nodes pull, by what is needed.
    """
    claims = held_here if view.keeping else held_here | view.slot.needed[:, None]
    size = basis.in_storages[:, me] * claims
    order = saved.argsort(dim=2, descending=True, stable=True)
    ordered = size.gather(2, order)
    filled = torch.empty_like(size).scatter_(2, order, ordered.cumsum(dim=2) - ordered)
    margin = torch.where(claims & (filled + size > 1.0), saved, 0.0).amax(dim=2, keepdim=True)
    return filled.clamp_(max=3.0), saved - margin


def _fill(view: View, basis: Basis) -> Tensor:
    """Return (E, N) the bytes that every node is known to have, in storages."""
    sets = view.holders if view.keeping else view.cached
    return (basis.member[sets].transpose(1, 2) * basis.in_storages).sum(dim=2).clamp(max=5.0)


def _state(view: View, basis: Basis, fill: Tensor) -> Tensor:
    """Return (E, F_state)."""
    # Means over the bytes of the library.
    per_byte = torch.stack(
        [
            (view.held != 0).float(),
            basis.count[view.held],
            basis.at_kind(basis.worth[:, :1], view.held)[..., 0],
        ],
        dim=1,
    )
    means = (per_byte @ basis.share[..., None])[..., 0]
    stage = [float(view.keeping), view.decided.bit_count() / view.slot.nodes]
    same = torch.tensor(stage, device=fill.device).expand(len(fill), -1)
    return torch.cat([basis.state, same, fill.mean(dim=1, keepdim=True), means], dim=1)
