"""What a slot costs from one cached set to the next: the arcs of the dynamic programme as a table.

A block that has X cached in slot t and Y in slot t + 1 takes, per byte,

    w_t(X, Y) = min over levels l with Y within Q_l(X) of tau_l(X) + b_t(Q_l(X))

of slot t, and nothing where nobody needs it and Y is within X. A path of cached sets then costs the
sum of its arcs. The tables have 4^N entries for a slot and a class, so they are for few nodes.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.placement.chains import Classes


def slot_transitions(classes: Classes, t: int, c: int) -> FloatArray:
    """Return w_t(X, Y) of class c, s per byte, (2^N, 2^N); infinite where Y cannot follow X.

    Parameters
    ----------
    classes
        The tables, of a sequential schedule, whose units are the nodes.
    t, c
        Slot and class.

    Examples
    --------
    One node, 1 s per byte on the air and 3 from the cloud: cached or not now (rows) and next.

    >>> from finecast.solvers.placement.chains import classes
    >>> from finecast.solvers.placement.problem import PlacementProblem
    >>> tables = classes(PlacementProblem(
    ...     block_size=[10],
    ...     storage=[20],
    ...     group=[[0]],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... ))
    >>> slot_transitions(tables, 0, 0).tolist()
    [[4.0, 4.0], [1.0, 1.0]]
    """
    chains = classes.chains
    sets = len(chains.member)
    ways = np.full((sets, sets), np.inf)
    if not classes.needed[t, c]:
        ways[_within(np.arange(sets))] = 0.0
        return ways
    sends = chains.time + classes.broadcast[t][chains.sender, c]
    for level in range(chains.sender.shape[1]):
        reach = np.where(_within(chains.sender[:, level]), sends[:, [level]], np.inf)
        np.minimum(ways, reach, out=ways)
    return ways


def transitions(classes: Classes) -> FloatArray:
    """Return w_t(X, Y) of all slots and classes, s per byte, (C, T, 2^N, 2^N).

    Nothing is cached after the last slot: only its column of the empty set counts.

    Parameters
    ----------
    classes
        As for `slot_transitions`.
    """
    slots, count = classes.needed.shape
    return np.stack(
        [np.stack([slot_transitions(classes, t, c) for t in range(slots)]) for c in range(count)]
    )


def _within(sender: IntArray) -> BoolArray:
    """Return (S, S): the set of the column is within the senders of the row."""
    within: BoolArray = (np.arange(len(sender)) & ~sender[:, None]) == 0
    return within
