"""Raw observations: the features of a slot without those that rest on expected tables or a plan.

A node then sees of every block its size, whether it has it, who else does, how many of its own
users and of its neighbours' listen now, when it was last needed and how often, the times of links
and the time on the air now. It sees nothing of the demand model: no probability of need, no
expected delay, no storage price and no chain level chosen by a rule.

The paper that `maasn-da` follows (Fu et al., arXiv 2509.19341) learns from the observations of its
nodes alone; which these are is not published, so the choice is ours.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, STATE, Features

OBSERVATIONS = ("tables", "raw")
"""What nodes see: everything, or what does not rest on expected tables."""

EXPECTED = frozenset(
    {
        # of the demand model
        *(f"probability of need, coming slot {h}" for h in (1, 2, 3)),
        "probability of need, mean of the coming slots",
        "listeners in the next slot, this node's part, compressed",
        "listeners in the next slot, its part, compressed",
        "bytes expected to be needed next, share of the library",
        # of expected delays
        "saved in the next slot by the only copy",
        *(f"saved by a copy here, coming slot {h}" for h in (1, 2, 3)),
        "saved by a copy here, mean of the coming slots",
        "saved by its copy in the next slot",
        "bytes of what saves more in the next slot, in storages",
        "saved in the next slot less what the first byte out of the storage saves",
        "expected delay per byte of the library in the next slot, with what is here",
        # of the look-ahead
        "lookahead: saved by keeping, before rent",
        "lookahead: saved after this slot, rent paid",
        "lookahead: saved by keeping less the rent of the next slot",
        "its price of storage",
        "price of storage, mean over nodes",
        # of the rule that pulls
        "in the best level of the slot",
        "time on the air per byte of the library, by the best levels",
    }
)
"""Features that raw observations do not have."""


def raw_features(seen: Features) -> Features:
    """Return the features with 0 for each of `EXPECTED`."""
    return replace(
        seen,
        own=_without(seen.own, _OWN),
        neighbour=_without(seen.neighbour, _NEIGHBOUR),
        cloud=_without(seen.cloud, _CLOUD),
        state=_without(seen.state, _STATE),
    )


def _expected(names: tuple[str, ...]) -> Tensor:
    return torch.tensor([name in EXPECTED for name in names])


def _without(values: Tensor, expected: Tensor) -> Tensor:
    return values.masked_fill(expected.to(values.device), 0.0)


_OWN, _NEIGHBOUR, _CLOUD, _STATE = (_expected(names) for names in (OWN, NEIGHBOUR, CLOUD, STATE))
