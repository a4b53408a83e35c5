"""Areas: which nodes cooperate, and to which area each user belongs (docs/areas.md).

The nodes are partitioned into areas, numbered from 0. In a slot, a user that requests something
belongs to the area of its strongest node. With one area the problem is that of the formulation.
"""

from __future__ import annotations

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
