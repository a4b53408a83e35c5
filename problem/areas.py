"""Areas: which nodes cooperate, and to which area each user belongs (docs/areas.md).

The nodes are partitioned into areas, numbered from 0. In a slot, a user that requests something
belongs to the area of its strongest node. With one area the problem is that of the formulation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray, checked

WIDE = -1
"""The area of a message that any node may send to any user."""


def checked_areas(areas: IntArray, nodes: int) -> IntArray:
    """Return the area of every node as a read-only array.

    Parameters
    ----------
    areas
        (N,) area of each node, or empty for one area.
    nodes
        N.

    Raises
    ------
    ValueError
        The shape is another, or a number between 0 and the largest area is nobody's.
    """
    if np.shape(areas) == (0,):
        areas = np.zeros(nodes, dtype=np.int64)
    array = checked("areas", areas, "int", (nodes,), low=0, high=nodes - 1)
    absent = np.setdiff1d(np.arange(array.max() + 1), array)
    if len(absent):
        raise ValueError(
            f"areas: no node is in area {absent[0]}, each from 0 to {array.max()} must have one"
        )
    return array


def area_of_users(channel: ComplexArray, requests: IntArray, areas: IntArray) -> IntArray:
    """Return the area of every user that requests something, that of its strongest node.

    The strongest node has the largest amplitude gain |h_kn|, over all antennas; of equal ones it is
    that of the smallest number.

    Parameters
    ----------
    channel
        (T, K, N, A), estimated channels.
    requests
        (T, K), model requested, -1 for none.
    areas
        (N,) area of each node.

    Returns
    -------
    (T, K) area of each user, -1 where it requests nothing.
    """
    strongest = np.linalg.norm(channel, axis=3).argmax(axis=2)
    return np.where(requests >= 0, areas[strongest], -1)


def area_weights(user_area: IntArray, count: int) -> FloatArray:
    """Return each area's share of the requesting users, w_a = K_a / K; 0 where nobody requests.

    Parameters
    ----------
    user_area
        (T, K) area of each user, -1 for none.
    count
        Number of areas.

    Returns
    -------
    (T, areas) array.
    """
    members = (user_area[:, :, None] == np.arange(count)).sum(axis=1)
    return np.asarray(members / np.maximum(members.sum(axis=1, keepdims=True), 1))


def needed_by_area(wanted: BoolArray, user_area: IntArray, count: int) -> BoolArray:
    """Return which areas have users of a block.

    Parameters
    ----------
    wanted
        (T, K, J): user k needs block j in slot t.
    user_area
        (T, K) area of each user, -1 for none.
    count
        Number of areas.

    Returns
    -------
    (T, areas, J) bool.
    """
    needed = np.zeros((len(wanted), count, wanted.shape[2]), dtype=bool)
    for t, k in np.argwhere(user_area >= 0):
        needed[t, user_area[t, k]] |= wanted[t, k]
    return needed


# ---- which nodes make an area

LARGEST_EXACT = 8
"""Nodes of an area up to which methods keep every set of them; above, some nodes go together."""

DISTANCE_WEIGHT = 0.1
"""What the square of a distance counts, in units of the nearest neighbour's, against the coupling
of a node's strongest neighbour."""

MOST_SWEEPS = 20


def partition(gain: FloatArray, position: FloatArray, size: int) -> IntArray:
    """Return areas of at most `size` nodes each, as equal as can be, near and strongly coupled.

    Nodes are cut in halves along the longer side of their map until the number of areas is there.
    Then two nodes of different areas change places as long as that raises

        sum over pairs of an area of c_mn / c - w (d_mn / d)^2

    with the coupling c_mn = sum_k s_km s_kn, where s_kn is node n's share of the power gains of
    user k. c and d are the means over nodes of the strongest coupling and the nearest distance, and
    w is `DISTANCE_WEIGHT`. Equal gains count alike to nine digits, so that all machines agree.

    Parameters
    ----------
    gain
        (K, N) power gain from node n to user k.
    position
        (N, 2) m.
    size
        Most nodes of an area, >= 1.

    Returns
    -------
    (N,) area of each node, numbered in the order of their first nodes.
    """
    nodes = len(position)
    count = -(-nodes // size)
    area = np.zeros(nodes, dtype=np.int64)
    _cut(np.round(position, 3), np.arange(nodes), count, area)
    if 1 < count < nodes:
        _swap(_attraction(gain, position), area)
    _, first, label = np.unique(area, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[label.ravel()]


def _cut(position: FloatArray, nodes: IntArray, count: int, area: IntArray) -> None:
    """Number the areas of some nodes from the number that they have, by cuts in halves."""
    if count == 1:
        return
    x, y = position[nodes].T
    along = x if np.ptp(x) >= np.ptp(y) else y
    across = y if along is x else x
    ordered = nodes[np.lexsort((nodes, across, along))]
    halves = count // 2
    share = len(nodes) * halves // count  # at most `size` nodes an area on either side
    area[ordered[share:]] += halves
    _cut(position, ordered[:share], halves, area)
    _cut(position, ordered[share:], count - halves, area)


def _attraction(gain: FloatArray, position: FloatArray) -> FloatArray:
    """Return (N, N) what a pair of nodes adds to the worth of an area that has both."""
    share = gain / np.maximum(gain.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    coupling = share.T @ share
    square = ((position[:, None] - position) ** 2).sum(axis=2)
    alone = np.eye(len(position), dtype=bool)
    coupling[alone] = 0.0
    strongest = coupling.max(axis=1).mean()
    nearest = np.sqrt(np.where(alone, np.inf, square).min(axis=1)).mean()
    worth = coupling / strongest if strongest > 0.0 else coupling
    if nearest > 0.0:
        worth = worth - DISTANCE_WEIGHT * square / nearest**2
    worth[alone] = 0.0
    return np.asarray(worth)


def _swap(worth: FloatArray, area: IntArray) -> None:
    """Let nodes of different areas change places while that raises the sum of worth within."""
    nodes = np.arange(len(area))
    towards = worth @ np.eye(area.max() + 1)[area]  # (N, areas), what a node is worth to each
    for _ in range(MOST_SWEEPS):
        changed = False
        for i in nodes:
            own = area[i]
            raised = (
                towards[i, area] - towards[i, own]
                + towards[nodes, own] - towards[nodes, area] - 2.0 * worth[i]
            )  # fmt: skip
            raised = np.round(np.where(area == own, 0.0, raised), 9)
            j = int(raised.argmax())
            if raised[j] <= 0.0:
                continue
            other = area[j]
            towards[:, own] += worth[:, j] - worth[:, i]
            towards[:, other] += worth[:, i] - worth[:, j]
            area[i], area[j] = other, own
            changed = True
        if not changed:
            return


def areas_of_lists(lists: Sequence[Sequence[int]], nodes: int) -> IntArray:
    """Return the area of every node from the nodes of every area.

    Parameters
    ----------
    lists
        The nodes of each area.
    nodes
        N.

    Raises
    ------
    ValueError
        A node is in none of them, in two, or is none; an area has no node.
    """
    area = np.full(nodes, -1)
    for a, members in enumerate(lists):
        if not members:
            raise ValueError(f"area {a} has no node, must have at least 1")
        for n in members:
            if not 0 <= n < nodes:
                raise ValueError(f"area {a} has node {n}, nodes are 0 to {nodes - 1}")
            if area[n] >= 0:
                where = f"in areas {area[n]} and {a}" if area[n] != a else f"twice in area {a}"
                raise ValueError(f"node {n} is {where}, each node must be in one area, once")
            area[n] = a
    missing = np.flatnonzero(area < 0)
    if len(missing):
        raise ValueError(f"node {missing[0]} is in no area, each node must be in one")
    return area


def area_notes(areas: IntArray) -> tuple[str, ...]:
    """Return a note where an area is too large for methods to keep every set of its nodes."""
    size = np.bincount(areas)
    above = np.flatnonzero(size > LARGEST_EXACT)
    if len(size) == 1 or not len(above):
        return ()
    return (
        f"area {above[0]} has {size[above[0]]} nodes, more than the {LARGEST_EXACT} of which every "
        "set is kept: placements there are in units, sets of nodes that hold a block together",
    )
