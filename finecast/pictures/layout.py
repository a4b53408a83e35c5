"""Where nodes, users and cells are drawn: at their positions, or as a schematic without them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.instance import Instance


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything is drawn.

    Parameters
    ----------
    node, user
        (N, 2) and (K, 2), m, or the unit of the schematic.
    cells
        (P, 2) outline of every node's cell; none in a schematic.
    measured
        The positions are the instance's own.
    """

    node: FloatArray
    user: FloatArray
    cells: tuple[FloatArray, ...]
    measured: bool


def layout_of(instance: Instance, slot: int = 0) -> Layout:
    """Return the instance's own positions in a slot with Voronoi cells, or a schematic."""
    node, user = instance.network.node_position, instance.user_position
    if instance.user_track is not None:
        user = instance.user_track[slot]
    if node is not None and user is not None:
        distance = np.linalg.norm(user[:, None] - node, axis=2).min(axis=1)
        apart = np.linalg.norm(node[:, None] - node, axis=2)
        between = apart[apart > 0].min(initial=np.inf)
        radius = max(
            1.02 * float(distance.max()), between / math.sqrt(3) if np.isfinite(between) else 1.0
        )
        return Layout(node, user, voronoi_cells(node, radius), True)
    nodes = instance.nodes
    angle = np.pi / 2 - 2 * np.pi * np.arange(nodes) / nodes
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (nodes > 1)
    received = np.linalg.norm(instance.channel_estimate, axis=3) * np.sqrt(instance.network.power)
    strongest = received.mean(axis=0).argmax(axis=1)
    return Layout(circle, _beside(circle, angle, strongest), (), False)


def voronoi_cells(node: FloatArray, radius: float) -> tuple[FloatArray, ...]:
    """Return the part of the disc of `radius` around each node that is nearest to that node.

    Parameters
    ----------
    node
        (N, 2) m.
    radius
        m.

    Returns
    -------
    (P, 2) corners of each cell, m.
    """
    angle = 2 * np.pi * np.arange(120) / 120
    disc = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cells = []
    for own in node:
        cell = own + disc
        apart = np.linalg.norm(node - own, axis=1)
        for neighbour in node[apart <= 2.0 * radius]:  # others cut nothing off the disc
            if (neighbour != own).any():
                cell = _nearer(cell, own, neighbour)
        cells.append(cell)
    return tuple(cells)


def _nearer(polygon: FloatArray, own: FloatArray, other: FloatArray) -> FloatArray:
    """Return the part of a convex polygon nearer to `own` (Sutherland and Hodgman, 1974)."""
    beyond = (polygon - (own + other) / 2) @ (other - own)
    corners = []
    for here in range(len(polygon)):
        there = (here + 1) % len(polygon)
        if beyond[here] <= 0:
            corners.append(polygon[here])
        if (beyond[here] <= 0) != (beyond[there] <= 0):
            share = beyond[here] / (beyond[here] - beyond[there])
            corners.append(polygon[here] + share * (polygon[there] - polygon[here]))
    return np.array(corners)


def _beside(node: FloatArray, outward: FloatArray, strongest: IntArray) -> FloatArray:
    """Return (K, 2): users in fans of up to seven on the outer side of their node."""
    spacing = 2 * math.sin(math.pi / len(node)) if len(node) > 1 else 1.0
    fan = np.radians(100.0)
    user = np.empty((len(strongest), 2))
    for n in range(len(node)):
        attached = np.flatnonzero(strongest == n)
        for place, k in enumerate(attached):
            ring, seat = divmod(place, 7)
            seats = min(7, len(attached) - 7 * ring)
            turn = fan * ((seat + 0.5) / seats * 2 - 1)
            arm = spacing * (0.36 + 0.13 * ring)
            direction = outward[n] + turn
            user[k] = node[n] + arm * np.array([math.cos(direction), math.sin(direction)])
    return user
