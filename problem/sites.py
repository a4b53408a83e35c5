"""Sites of a city from a CSV file: where they stand, what they store, how strongly they send.

Latitude and longitude become metres by the equirectangular projection about the centroid of the
sites, x = R cos(latitude_0) (longitude - longitude_0), y = R (latitude - latitude_0). Within 10 km
of the centroid, up to 60 degrees of latitude, distances are off by less than 0.3 %; sites further
from it than `FARTHEST_M` are refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.csv_rows import shown
from finecast.problem.csv_table import Row, read_table
from finecast.problem.files import FormatError
from finecast.problem.network import dbm_to_w

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius, m."""

FARTHEST_M = 100_000.0
"""Of a site from the centroid of all, and of a cell of users from the nearest site."""

NEAREST_M = 0.5
"""Two sites stand at least so far apart."""

LARGEST = 1e9
"""Of storage (GB), power (W), rates (Gbit/s), weights, and coordinates (m)."""

LARGEST_DBM = 1000.0
MOST_ANTENNAS = 4096
MOST_SITES = 10_000

CLOUD = "cloud"
"""Stands in a file of links for where every block is; no site may be called so."""

EVERY_SITE = "*"
"""Stands in a file of demand for all sites, or districts, without rows of their own."""

DISTRICT = "district"
"""Column with the name of the district of a site, or of a cell of users."""

GLOBE = ("latitude", "longitude")
PLANE = ("x_m", "y_m")
POWER = ("power_w", "power_dbm")
"""Columns of the power of a site, of which a file has one or none."""


@dataclass(frozen=True, eq=False)
class Sites:
    """The sites of a file.

    Attributes
    ----------
    names
        N different ones.
    position
        (N, 2) m.
    project
        From the two coordinates of the file to m.
    axes
        `GLOBE` or `PLANE`, the columns of the coordinates.
    storage_gb, power_w
        (N,) GB and W; None where the file has no such column.
    antennas
        (N,); None where the file does not say.
    district
        N names of districts, the planner's own; None where the file does not say.
    """

    names: tuple[str, ...]
    position: FloatArray
    project: Callable[[float, float], tuple[float, float]]
    axes: tuple[str, str]
    storage_gb: FloatArray | None
    power_w: FloatArray | None
    antennas: IntArray | None
    district: tuple[str, ...] | None = None


def read_sites(path: str | os.PathLike[str]) -> Sites:
    """Return the sites in a CSV file.

    Parameters
    ----------
    path
        Columns `name`, and `latitude` and `longitude` in degrees (or `x_m` and `y_m`). If wanted
        `storage_gb`, `power_w` or `power_dbm`, `antennas`, and `district`.

    Raises
    ------
    FormatError
        The file is no such table; a name stands twice or is 'cloud'; a site is outside the globe,
        where another one is, or far from all others; a number is negative. The message names line
        and column.
    """
    rows = read_table(path, ["name"], [*GLOBE, *PLANE, "storage_gb", *POWER, "antennas", DISTRICT])
    if len(rows) > MOST_SITES:
        raise FormatError(path, f"has {len(rows)} sites, {MOST_SITES} are allowed")
    line_of: dict[str, int] = {}
    for row in rows:
        name = row.text("name")
        if name in line_of:
            raise row.wrong("name", f"{shown(name)} stands in line {line_of[name]} already")
        if name in (CLOUD, EVERY_SITE):
            raise row.wrong("name", f"{name!r} is not allowed, it has a meaning of its own")
        line_of[name] = row.line
    axes = _axes(path, rows[0])
    coordinates = np.array([coordinates_of(row, axes) for row in rows])
    project = _about_centroid(coordinates) if axes == GLOBE else _as_given
    position = np.array([project(a, b) for a, b in coordinates])
    _check_places(rows, position, axes)
    return Sites(
        names=tuple(line_of),
        position=position,
        project=project,
        axes=axes,
        storage_gb=_column(rows, "storage_gb", low=0.0),
        power_w=_power(path, rows),
        antennas=_antennas(rows),
        district=districts(rows),
    )


def _axes(path: str | os.PathLike[str], row: Row) -> tuple[str, str]:
    """Return the two columns of coordinates that a file has."""
    found = [axes for axes in (GLOBE, PLANE) if any(axis in row.fields for axis in axes)]
    if len(found) != 1:
        raise FormatError(
            path, "line 1: give the columns 'latitude' and 'longitude', or 'x_m' and 'y_m'"
        )
    check_axes(path, row, found[0])
    return found[0]


def check_axes(path: str | os.PathLike[str], row: Row, axes: tuple[str, str]) -> None:
    """Refuse a file that lacks one of two coordinates."""
    for axis in axes:
        if axis not in row.fields:
            raise FormatError(path, f"line 1: column {axis!r} is missing")


def coordinates_of(row: Row, axes: tuple[str, str]) -> tuple[float, float]:
    """Return the two coordinates in a row."""
    if axes == PLANE:
        return row.number("x_m", low=-LARGEST, high=LARGEST), row.number(
            "y_m", low=-LARGEST, high=LARGEST
        )
    return (
        row.number("latitude", low=-90.0, high=90.0),
        row.number("longitude", low=-180.0, high=180.0),
    )


def _about_centroid(degrees: FloatArray) -> Callable[[float, float], tuple[float, float]]:
    """Return the projection of (latitude, longitude) to m about the centroid of some places."""
    # Longitudes are counted from the first one: a city may lie on both sides of 180 degrees.
    first = float(degrees[0, 1])
    latitude = float(degrees[:, 0].mean())
    longitude = first + float(_turned(degrees[:, 1] - first).mean())
    across = EARTH_RADIUS_M * math.cos(math.radians(latitude))

    def project(lat: float, lon: float) -> tuple[float, float]:
        east = float(_turned(np.array([lon - longitude]))[0])
        return across * math.radians(east), EARTH_RADIUS_M * math.radians(lat - latitude)

    return project


def _turned(degrees: FloatArray) -> FloatArray:
    """Return angles in degrees as those from -180 to 180."""
    return (degrees + 180.0) % 360.0 - 180.0


def _as_given(x: float, y: float) -> tuple[float, float]:
    return x, y


def _check_places(rows: Sequence[Row], position: FloatArray, axes: tuple[str, str]) -> None:
    """Refuse sites far from their middle or where another one is."""
    # The median: one site with its sign forgotten must not move the middle to nowhere.
    away = np.linalg.norm(position - np.median(position, axis=0), axis=1)
    worst = int(away.argmax())
    if away[worst] > FARTHEST_M:
        raise rows[worst].wrong(
            axes[0],
            f"the site is {away[worst] / 1000:.0f} km from the middle of all, "
            f"{FARTHEST_M / 1000:.0f} km are allowed",
        )
    for n, row in enumerate(rows[1:], start=1):
        near = np.flatnonzero(np.linalg.norm(position[:n] - position[n], axis=1) < NEAREST_M)
        if len(near):
            raise row.wrong(axes[0], f"stands where the site of line {rows[near[0]].line} stands")


def _column(rows: Sequence[Row], column: str, *, low: float) -> FloatArray | None:
    if column not in rows[0].fields:
        return None
    return np.array([row.number(column, low=low, high=LARGEST) for row in rows])


def _power(path: str | os.PathLike[str], rows: Sequence[Row]) -> FloatArray | None:
    if all(column in rows[0].fields for column in POWER):
        raise FormatError(path, "line 1: give either the column 'power_w' or 'power_dbm'")
    if "power_dbm" in rows[0].fields:
        dbm = [row.number("power_dbm", low=-LARGEST_DBM, high=LARGEST_DBM) for row in rows]
        return dbm_to_w(np.array(dbm))
    return _column(rows, "power_w", low=0.0)


def districts(rows: Sequence[Row]) -> tuple[str, ...] | None:
    """Return the name of the district in every row; None where there is no such column.

    Raises
    ------
    FormatError
        One is empty, or has a meaning of its own; names line and column.
    """
    if DISTRICT not in rows[0].fields:
        return None
    for row in rows:
        if row.text(DISTRICT) == EVERY_SITE:
            raise row.wrong(DISTRICT, f"{EVERY_SITE!r} is not allowed, it has a meaning of its own")
    return tuple(row.text(DISTRICT) for row in rows)


def _antennas(rows: Sequence[Row]) -> IntArray | None:
    """Return (N,) antennas of every site."""
    if "antennas" not in rows[0].fields:
        return None
    return np.array([row.whole("antennas", low=1, high=MOST_ANTENNAS) for row in rows])
