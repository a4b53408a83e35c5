"""What nodes that decide apart believe, as tensors: costs of node sets by what each of them sees.

`finecast.solvers.information` says what a node sees. Given that, the stochastic programme
(`finecast.solvers.heuristics.apart.programme_costs`) says what it costs that a set of nodes keeps a
block. Row 0 is what all nodes see, row 1 + n what node n sees. The values of the programme rest on
the channels of slot 0, which all nodes are told.

`beliefs_of` computes all slots of a draw for training, where the expert's costs, which see
everything, are a row of their own; `beliefs_in_slot` those of one slot for a policy that plays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from finecast.problem.arrays import IntArray
from finecast.problem.instance import Instance
from finecast.solvers.heuristics.apart import air_of, foreseen_sets, programme_costs
from finecast.solvers.heuristics.programme_values import Values, values_from
from finecast.solvers.information import HIDDEN, Information, Sight, sights
from finecast.solvers.online import Observation, prior_of
from finecast.solvers.placement.demand_programme import wanted_last
from finecast.solvers.placement.problem import PlacementProblem


@dataclass(frozen=True, eq=False)
class Beliefs:
    """Beliefs of the nodes of E draws, in one slot or, with an axis T after E, in all slots.

    Attributes
    ----------
    cost
        (E, 1 + N, C, S) float32 seconds per byte from the next slot on, if a set of nodes keeps a
        block of the kind: by what all nodes see, and by what each sees.
    expert
        (E, C, S) float32 the same by all that can be known, for training; 0 where a policy plays.
    asked
        (E, N, C, 2) float32 users that each node sees to want the kind in this slot, and by the
        newest request that it sees.
    wants
        (E, N, K, 2) int16 the model that each node sees each user to want in this slot, and by the
        newest request that it sees; -1 where it sees none.
    reach
        (E, N, K, N) float32 the newest amplitude that each node sees every user to receive from
        each node alone, noise 1.
    foreseen
        (E, C, S) int16 who all nodes take to have a block of the kind after the delivery, by the
        nodes that they see to have it cached.
    seen
        (E, N, N) bool whose caches each node sees.
    """

    cost: Tensor
    expert: Tensor
    asked: Tensor
    wants: Tensor
    reach: Tensor
    foreseen: Tensor
    seen: Tensor

    def slot(self, t: int) -> Beliefs:
        """Return those of slot t."""
        return Beliefs(*(getattr(self, field.name)[:, t] for field in fields(self)))

    def select(self, index: Tensor) -> Beliefs:
        """Return those of some draws."""
        return Beliefs(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device | str) -> Beliefs:
        """Return the same on another device."""
        return Beliefs(*(getattr(self, field.name).to(device) for field in fields(self)))


def joined_beliefs(parts: Sequence[Beliefs]) -> Beliefs:
    """Return the beliefs of several draws side by side, kinds padded to the longest with 0."""
    kinds_of_longest = max(part.expert.shape[-2] for part in parts)

    def padded(table: Tensor) -> Tensor:
        return torch.nn.functional.pad(table, (0, 0, 0, kinds_of_longest - table.shape[-2]))

    by_kind = ("cost", "expert", "asked", "foreseen")
    joined = {
        field.name: torch.cat([getattr(part, field.name) for part in parts])
        for field in fields(Beliefs)
        if field.name not in by_kind
    }
    joined |= {name: torch.cat([padded(getattr(part, name)) for part in parts]) for name in by_kind}
    return Beliefs(**joined)


def beliefs_of(
    instance: Instance, information: Information, values: Values | None = None
) -> Beliefs:
    """Return the beliefs of one draw in all slots (E = 1), without a rate.

    Parameters
    ----------
    instance
        The draw.
    information
        The structure; not "senders", where what a node sees depends on what it has.
    values
        Those of `network_values` of an instance with the same network, to save that time.

    Raises
    ------
    ValueError
        The structure is "senders".
    """
    if information == "senders":
        raise ValueError(
            "information: 'senders' is not allowed for learners, must be 'full', 'delayed' or "
            "'local': what a sender sees depends on what it has"
        )
    known = network_values(instance) if values is None else values
    slots = []
    for t in range(instance.slots):
        slot = beliefs_in_slot(*_sights_without_caches(instance, t, information), known)
        if t < instance.slots - 1:
            everything, _ = _sights_without_caches(instance, t, "full")
            expert = programme_costs(known, [everything])
            slot = replace(slot, expert=torch.from_numpy(expert).float())
        slots.append(slot)
    stacked = (
        torch.stack([getattr(slot, field.name) for slot in slots], dim=1)
        for field in fields(Beliefs)
    )
    return Beliefs(*stacked)


def network_values(instance: Instance) -> Values:
    """Return the values of the programme on the channels of slot 0: some CPU seconds.

    Raises
    ------
    ValueError
        There are more slots than values reach.
    """
    common, _ = _sights_without_caches(instance, 0, "local")
    values, _ = values_from(common.prior, air_of(common)[0], 0, 0)
    if len(values.ahead) < instance.slots:
        raise ValueError(
            f"slots: {instance.slots} are not allowed for learners that decide apart, must be <= "
            f"{len(values.ahead)}"
        )
    return values


def beliefs_in_slot(common: Sight, each: list[Sight], values: Values) -> Beliefs:
    """Return the beliefs of one slot (E = 1); the expert's costs are 0.

    Parameters
    ----------
    common, each
        What all nodes see, and what each sees.
    values
        Of the programme; they reach beyond the slot, if it is not the last.
    """
    nodes = len(each)
    contains = values.programme.contains
    sets, count = 1 << nodes, contains.shape[1]
    cost = np.zeros((1 + nodes, count, sets))
    if common.t < common.prior.demand.slots - 1:
        cost = programme_costs(values, [common, *each])
    wants = np.array([_models_wanted(sight) for sight in each])  # (N, 2, K)
    asked = [[wanted_last(contains, users).sum(axis=0) for users in of] for of in wants]
    reach = np.array([sight.newest_reach for sight in each])
    return Beliefs(
        cost=torch.from_numpy(cost)[None].float(),
        expert=torch.zeros((1, count, sets)),
        asked=torch.from_numpy(np.array(asked).swapaxes(1, 2))[None].float(),
        wants=torch.from_numpy(wants.swapaxes(1, 2))[None].to(torch.int16),
        reach=torch.from_numpy(reach)[None].float(),
        foreseen=torch.from_numpy(foreseen_sets(common))[None].to(torch.int16),
        seen=torch.from_numpy(np.stack([sight.seen_nodes for sight in each]))[None],
    )


def _models_wanted(sight: Sight) -> tuple[IntArray, IntArray]:
    """Return (K,) the models that the users are seen to want now, and by their newest requests."""
    newest = sight.newest_requests
    return np.where(sight.requests[-1] == HIDDEN, -1, newest), newest


def _sights_without_caches(
    instance: Instance, t: int, information: Information
) -> tuple[Sight, list[Sight]]:
    """Return what is seen of the users in slot t; nothing is cached, and no rate is known."""
    prior, library = prior_of(instance), instance.library
    nothing = np.zeros((instance.nodes, instance.blocks), dtype=bool)
    nobody = np.full((1, instance.blocks), -1)
    no_times = (np.zeros((0, 1 << instance.nodes)),)
    observation = Observation(
        prior,
        t,
        instance.requests[: t + 1],
        instance.channel_estimate[: t + 1],
        instance.channel_error[: t + 1],
        plan=None,  # type: ignore[arg-type]
        rates=None,  # type: ignore[arg-type]
        problem=PlacementProblem(
            library.block_size, instance.network.storage, nobody, no_times, prior.link
        ),
    )
    return sights(observation, nothing, nothing, information)
