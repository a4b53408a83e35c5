"""The edge network: storage, power, links and radio constants; layouts; users dropped into cells.

Decibels are converted here and nowhere deeper. 1 W is 30 dBm; thermal noise is -174 dBm/Hz, so
-104 dBm in 10 MHz and, with a noise figure of 9 dB, -95 dBm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import FloatArray, IntArray, checked, checked_number

THERMAL_NOISE_DBM_PER_HZ = -174.0
"""Thermal noise density at 290 K."""

_CANDIDATES = 256
"""Positions drawn at a time; fixed, so that the first users do not depend on how many follow."""


@dataclass(frozen=True, eq=False)
class Network:
    """N edge nodes, their links and the radio they share (docs/formulation.md section 1).

    Attributes
    ----------
    storage
        (N,) byte, cache size of each node.
    power
        (N,) W, transmit power limit of each node.
    backhaul_rate
        (N, N) bit/s, `[source, receiver]`, 0 for no link. The diagonal means nothing and is
        stored as 0.
    cloud_rate
        (N,) bit/s, from the cloud, which holds every block, to each node; positive.
    bandwidth
        Hz.
    noise_power
        W over the whole bandwidth, noise figure included.
    max_spectral_efficiency
        bit/s/Hz, the rate of the highest modulation and coding; infinite for none.
    node_position
        (N, 2) m, for pictures; None where unknown.
    node_names
        N texts, for people; empty where the nodes have none.

    Raises
    ------
    ValueError
        A shape or value is not allowed; one line says which, where and what is.
    """

    storage: IntArray
    power: FloatArray
    backhaul_rate: FloatArray
    cloud_rate: FloatArray
    bandwidth: float
    noise_power: float
    max_spectral_efficiency: float = math.inf
    node_position: FloatArray | None = None
    node_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        nodes = np.size(self.storage)
        if nodes == 0:
            raise ValueError("storage: 0 nodes are not allowed, must be at least 1")
        backhaul_rate = np.array(self.backhaul_rate)
        if backhaul_rate.shape == (nodes, nodes):
            np.fill_diagonal(backhaul_rate, 0)
        arrays = {
            "storage": checked("storage", self.storage, "int", (nodes,), low=0),
            "power": checked("power", self.power, "float", (nodes,), low=0.0),
            "backhaul_rate": checked(
                "backhaul_rate", backhaul_rate, "float", (nodes, nodes), low=0.0
            ),
            "cloud_rate": _positive("cloud_rate", self.cloud_rate, (nodes,)),
        }
        if self.node_position is not None:
            arrays["node_position"] = checked(
                "node_position", self.node_position, "float", (nodes, 2)
            )
        names = tuple(self.node_names)
        if len(names) not in (0, nodes) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"node_names: must be {nodes} texts, or none")
        object.__setattr__(self, "node_names", names)
        numbers = {
            "bandwidth": checked_number("bandwidth", self.bandwidth, above=0.0),
            "noise_power": checked_number("noise_power", self.noise_power, above=0.0),
            "max_spectral_efficiency": checked_number(
                "max_spectral_efficiency", self.max_spectral_efficiency, above=0.0, finite=False
            ),
        }
        for name, value in (arrays | numbers).items():
            object.__setattr__(self, name, value)

    @property
    def nodes(self) -> int:
        """N, the number of edge nodes."""
        return len(self.storage)

    @property
    def link_rate(self) -> FloatArray:
        """(N + 1, N) bit/s: row n from node n, row N from the cloud; read-only."""
        rate = np.vstack([self.backhaul_rate, self.cloud_rate])
        rate.setflags(write=False)
        return rate


def db_to_linear(value_db: ArrayLike) -> FloatArray:
    """Return the power ratio 10^(dB / 10).

    Raises
    ------
    ValueError
        A value is NaN, or above 3000 dB, the range of float64.
    """
    value = checked("value_db", value_db, "float", np.shape(value_db), high=3000.0, finite=False)
    return np.asarray(10.0 ** (value / 10.0))


def dbm_to_w(power_dbm: ArrayLike) -> FloatArray:
    """Return the power in W: 10^((dBm - 30) / 10).

    Raises
    ------
    ValueError
        A value is NaN, or above 3000 dBm, the range of float64.
    """
    power = checked("power_dbm", power_dbm, "float", np.shape(power_dbm), high=3000.0, finite=False)
    return db_to_linear(power - 30.0)


def thermal_noise_w(bandwidth_hz: float, noise_figure_db: float) -> float:
    """Return the receiver noise in W: -174 dBm/Hz + 10 log10(bandwidth) + noise figure.

    Raises
    ------
    ValueError
        The bandwidth is not positive or the noise figure is not within 0 to 100 dB.
    """
    bandwidth = checked_number("bandwidth_hz", bandwidth_hz, above=0.0)
    noise_figure = checked_number("noise_figure_db", noise_figure_db, low=0.0, high=100.0)
    return float(dbm_to_w(THERMAL_NOISE_DBM_PER_HZ + 10.0 * math.log10(bandwidth) + noise_figure))


def hexagonal_positions(nodes: int, inter_site_distance_m: float) -> FloatArray:
    """Return (nodes, 2) positions in m on a hexagonal grid, filled as a spiral from the middle.

    1 node, then the 6 around it, then 12, so 3 make a triangle, 4 a rhombus and 7 a full ring.
    Neighbours stand `inter_site_distance_m` apart; the mean position is the origin.

    Raises
    ------
    ValueError
        Fewer than one node, or a distance that is not positive.
    """
    distance = checked_number("inter_site_distance_m", inter_site_distance_m, above=0.0)
    _at_least_one("nodes", nodes)
    direction = np.exp(1j * np.pi / 3.0 * np.arange(8))  # six corners, the first two repeated
    spiral = [0j]
    ring = 1
    while len(spiral) < nodes:
        spiral += [
            ring * direction[corner] + step * direction[corner + 2]
            for corner in range(6)
            for step in range(ring)
        ]
        ring += 1
    return _centred(np.array(spiral[:nodes]), distance)


def square_positions(nodes: int, inter_site_distance_m: float) -> FloatArray:
    """Return (nodes, 2) positions in m on a square grid, row by row; the mean is the origin.

    Raises
    ------
    ValueError
        Fewer than one node, or a distance that is not positive.
    """
    distance = checked_number("inter_site_distance_m", inter_site_distance_m, above=0.0)
    _at_least_one("nodes", nodes)
    side = math.isqrt(nodes - 1) + 1  # the smallest square that holds them
    row, column = np.divmod(np.arange(nodes), side)
    return _centred(column + 1j * row, distance)


_MOST_TRIES = 2000
"""Candidates for the position of a user."""


def drop_users(
    rng: np.random.Generator,
    node_position: ArrayLike,
    users: int,
    *,
    cell_radius_m: float,
    min_distance_m: float = 0.0,
) -> FloatArray:
    """Return (users, 2) positions in m, uniform over the union of the cells.

    A cell is the disc of `cell_radius_m` around a node; nobody stands nearer than
    `min_distance_m` to any node. A point of a random disc is kept with one over the number of
    discs that hold it, which makes overlaps no denser than the rest. The first users are the same
    however many are dropped.

    Parameters
    ----------
    rng
        Source of randomness.
    node_position
        (N, 2) m.
    users
        How many users.
    cell_radius_m
        Radius of a cell.
    min_distance_m
        Smallest distance to any node; 10 m in UMi, 35 m in UMa.

    Raises
    ------
    ValueError
        A parameter is out of range, or (almost) no position obeys the two distances.
    """
    _at_least_one("users", users)
    node = checked_positions("node_position", node_position)
    nearest = checked_number("min_distance_m", min_distance_m, low=0.0)
    radius = checked_number("cell_radius_m", cell_radius_m, above=nearest)
    position = np.empty((0, 2))
    for _ in range(1000 + users):
        cell, area, angle, keep = rng.random((_CANDIDATES, 4)).T
        centre = node[(cell * len(node)).astype(np.int64)]
        arm = radius * np.sqrt(area)
        angle = 2.0 * np.pi * angle
        point = centre + np.stack([arm * np.cos(angle), arm * np.sin(angle)], axis=1)
        distance = np.linalg.norm(point[:, None] - node, axis=2)
        covering = (distance <= radius).sum(axis=1)
        accepted = (distance.min(axis=1) >= nearest) & (covering >= 1) & (keep * covering < 1.0)
        position = np.concatenate([position, point[accepted]])
        if len(position) >= users:
            return position[:users]
    raise ValueError(
        f"min_distance_m: {nearest:g} leaves (almost) no room for users within "
        f"cell_radius_m = {radius:g} of a node, must be smaller"
    )


def drop_users_nested(
    rng: np.random.Generator,
    node_position: ArrayLike,
    users: int,
    *,
    cell_radius_m: float,
    min_distance_m: float = 0.0,
) -> FloatArray:
    """Return (users, 2) positions in m, as `drop_users`, each user with candidates of her own.

    More users leave the others where they are. With another node those move who draw its cell, or
    who would stand too near to it. A user's cell is the node with the largest of N uniform numbers
    of hers, so that a new node takes one draw in N + 1.

    Parameters
    ----------
    rng
        A `finecast.problem.nested.NestedGenerator`.
    node_position, users, cell_radius_m, min_distance_m
        As in `drop_users`.

    Raises
    ------
    ValueError
        As in `drop_users`.
    """
    _at_least_one("users", users)
    node = checked_positions("node_position", node_position)
    nearest = checked_number("min_distance_m", min_distance_m, low=0.0)
    radius = checked_number("cell_radius_m", cell_radius_m, above=nearest)
    position = np.empty((users, 2))
    left = np.arange(users)
    for _ in range(_MOST_TRIES):
        cell = rng.random((users, len(node)))[left].argmax(axis=1)
        area, angle = rng.random((users, 2))[left].T
        arm, angle = radius * np.sqrt(area), 2.0 * np.pi * angle
        point = node[cell] + np.stack([arm * np.cos(angle), arm * np.sin(angle)], axis=1)
        distance = np.linalg.norm(point[:, None] - node, axis=2)
        # Where cells overlap the first of them counts, which a later node does not change.
        first = (distance <= radius).argmax(axis=1)
        accepted = (distance.min(axis=1) >= nearest) & (first == cell)
        position[left[accepted]] = point[accepted]
        left = left[~accepted]
        if not len(left):
            return position
    raise ValueError(
        f"min_distance_m: {nearest:g} leaves (almost) no room for users within "
        f"cell_radius_m = {radius:g} of a node, must be smaller"
    )


def checked_positions(name: str, value: ArrayLike) -> FloatArray:
    """Return at least one position as a read-only (n, 2) array in m.

    Raises
    ------
    ValueError
        The shape is another or a coordinate is not finite.
    """
    position = np.asarray(value)
    count = max(1, len(position)) if position.ndim else 1
    return checked(name, position, "float", (count, 2))


def _centred(grid: np.ndarray[tuple[int], np.dtype[np.complex128]], distance: float) -> FloatArray:
    grid = distance * (grid - grid.mean())
    return np.stack([grid.real, grid.imag], axis=1)


def _at_least_one(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name}: {count} is not allowed, must be >= 1")


def _positive(name: str, value: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    array = checked(name, value, "float", shape, low=0.0)
    for index in np.argwhere(array == 0.0):
        where = f"[{', '.join(map(str, index))}]" if shape else ""
        raise ValueError(f"{name}{where}: 0 is not allowed, must be > 0")
    return array
