"""How many users each site or cell of a map has, from a CSV file; and users dropped there."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.csv_rows import shown
from finecast.problem.csv_table import read_table
from finecast.problem.files import FormatError
from finecast.problem.sites import (
    DISTRICT,
    FARTHEST_M,
    LARGEST,
    NEAREST_M,
    Sites,
    check_axes,
    coordinates_of,
    districts,
)

MOST_USERS = 100_000

_MOST_TRIES = 2000
"""Draws for the position of a user."""


@dataclass(frozen=True, eq=False)
class UserCells:
    """Cells with users, of sites or of a map.

    Attributes
    ----------
    path
        Of the file.
    centre
        (C, 2) m.
    site
        (C,) the site of each cell; -1 for the cells of a map.
    amount
        (C,) numbers of users, or weights.
    counted
        They are numbers of users.
    district
        C names of districts; None where the file does not say.
    """

    path: str
    centre: FloatArray
    site: IntArray
    amount: FloatArray
    counted: bool
    district: tuple[str, ...] | None = None


def read_user_cells(path: str | os.PathLike[str], sites: Sites) -> UserCells:
    """Return the users of cells in a CSV file.

    Parameters
    ----------
    path
        Columns `site`, or the two coordinates of a cell's centre, as the sites have them;
        `users` or `weight`; and if wanted `district`.
    sites
        The sites.

    Raises
    ------
    FormatError
        The file is no such table, a site is unknown or stands twice, a number is negative, a cell
        is far from all sites, or there are no users at all. The message names line and column.
    """
    rows = read_table(path, [], ["site", *sites.axes, "users", "weight", DISTRICT])
    has = rows[0].fields
    if ("site" in has) == any(axis in has for axis in sites.axes):
        raise FormatError(
            path, f"line 1: give either the column 'site' or {' and '.join(map(repr, sites.axes))}"
        )
    if ("users" in has) == ("weight" in has):
        raise FormatError(path, "line 1: give either the column 'users' or 'weight'")
    counted = "users" in has
    if counted:
        amount = [float(row.whole("users", low=0, high=MOST_USERS)) for row in rows]
    else:
        amount = [row.number("weight", low=0.0, high=LARGEST) for row in rows]
    if "site" in has:
        site = np.array([row.one_of("site", sites.names, "site") for row in rows])
        line_of: dict[int, int] = {}
        for row, n in zip(rows, site.tolist(), strict=True):
            if n in line_of:
                name = shown(sites.names[n])
                raise row.wrong("site", f"{name} stands in line {line_of[n]} already")
            line_of[n] = row.line
        centre = sites.position[site]
    else:
        site = np.full(len(rows), -1)
        check_axes(path, rows[0], sites.axes)
        centre = np.array([sites.project(*coordinates_of(row, sites.axes)) for row in rows])
        for row, here in zip(rows, centre, strict=True):
            apart = float(np.linalg.norm(sites.position - here, axis=1).min())
            if apart > FARTHEST_M:
                raise row.wrong(
                    sites.axes[0],
                    f"the cell is {apart / 1000:.0f} km from the nearest site, "
                    f"{FARTHEST_M / 1000:.0f} km are allowed",
                )
    if sum(amount) <= 0:
        raise FormatError(path, f"column {'users' if counted else 'weight'!r}: all are 0")
    if counted and sum(amount) > MOST_USERS:
        raise FormatError(
            path, f"column 'users': {sum(amount):.0f} in all, {MOST_USERS} are allowed"
        )
    return UserCells(os.fspath(path), centre, site, np.array(amount), counted, districts(rows))


def shared_out(cells: UserCells, users: int | None) -> IntArray:
    """Return (K,) the cell of every user, cells in the order of the file.

    Parameters
    ----------
    cells
        With numbers of users or weights.
    users
        How many to share out in proportion, by largest remainders (of equal ones the first); None:
        the numbers of the file.

    Raises
    ------
    FormatError
        There are weights alone and no number of users.
    """
    if users is None:
        if not cells.counted:
            raise FormatError(cells.path, "has weights: say how many users with 'users.count'")
        count = cells.amount.astype(np.int64)
    else:
        exact = users * cells.amount / cells.amount.sum()
        count = np.floor(exact).astype(np.int64)
        order = np.argsort(-np.round(exact - count, 9), kind="stable")
        count[order[: users - int(count.sum())]] += 1
    return np.repeat(np.arange(len(count)), count)


def drop_in_cells(
    rng: np.random.Generator,
    node_position: FloatArray,
    cells: UserCells,
    of_cell: IntArray,
    *,
    site_radius_m: float,
    map_radius_m: float | None,
    min_distance_m: float,
) -> FloatArray:
    """Return (K, 2) positions in m, each uniform within its own cell.

    The cell of a site is where it is the nearest site, within a radius. The cell of a map is a disc
    around its centre. Nobody stands nearer than `min_distance_m` to any site.

    Parameters
    ----------
    rng
        Source of randomness.
    node_position
        (N, 2) m.
    cells, of_cell
        The cells, and (K,) the cell of every user.
    site_radius_m
        Radius of the cell of a site.
    map_radius_m
        Radius of a cell of a map; None for half the distance of its centre to the nearest other.
    min_distance_m
        Smallest distance to a site.

    Raises
    ------
    ValueError
        (Almost) no position within a cell is far enough from all sites.
    """
    apart = np.linalg.norm(cells.centre[:, None] - cells.centre, axis=2)
    apart[apart <= NEAREST_M] = np.inf
    own = apart.min(axis=1) / 2 if len(apart) > 1 else np.full(len(apart), site_radius_m)
    own[np.isinf(own)] = site_radius_m
    of_map = own if map_radius_m is None else np.full(len(apart), map_radius_m)
    radius = np.where(cells.site >= 0, site_radius_m, of_map)[of_cell]
    centre, site = cells.centre[of_cell], cells.site[of_cell]
    position = np.empty((len(of_cell), 2))
    left = np.arange(len(of_cell))
    for _ in range(_MOST_TRIES):
        # Numbers are drawn for all, so that a user's do not depend on how many others are left.
        area, turn = rng.random((len(of_cell), 2))[left].T
        arm, angle = radius[left] * np.sqrt(area), 2.0 * np.pi * turn
        point = centre[left] + np.stack([arm * np.cos(angle), arm * np.sin(angle)], axis=1)
        distance = np.linalg.norm(point[:, None] - node_position, axis=2)
        inside = (site[left] < 0) | (distance.argmin(axis=1) == site[left])
        accepted = inside & (distance.min(axis=1) >= min_distance_m)
        position[left[accepted]] = point[accepted]
        left = left[~accepted]
        if not len(left):
            return position
    raise ValueError(
        f"users.min_distance_m: {min_distance_m:g} leaves (almost) no room for users in the cell "
        f"of row {int(of_cell[left[0]]) + 1} of {cells.path}"
    )
