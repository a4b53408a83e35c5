"""Users that move from slot to slot: a random waypoint walk, or tracks from a CSV file.

Random waypoint: a user walks straight to a random point at a random speed, rests, and goes on
(D. B. Johnson, D. A. Maltz, Mobile Computing, 1996).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from finecast.problem.arrays import FloatArray
from finecast.problem.csv_rows import csv_rows, shown
from finecast.problem.files import FormatError

COLUMNS = ("user", "slot", "x_m", "y_m")

MOST_LEGS = 10_000
"""A walk with more waypoints within the horizon is refused."""

FARTHEST_M = 1e9
"""No coordinate of a track is larger."""

Area = tuple[float, float, float, float]
"""Least x, least y, largest x, largest y, m."""


def random_waypoint(
    start: FloatArray,
    slots: int,
    slot_s: float,
    speed_mps: tuple[float, float],
    pause_s: float,
    waypoint: Callable[[int], FloatArray],
    uniform: Callable[[int], FloatArray],
) -> FloatArray:
    """Return where users are at the begin of each slot.

    A longer horizon begins like a shorter one.

    Parameters
    ----------
    start
        (K, 2) in slot 0, m.
    slots, slot_s
        T, and the length of a slot, s.
    speed_mps
        Lowest and highest speed, m/s; each leg has its own. Both 0 for users who stay.
    pause_s
        Rest at each waypoint, s.
    waypoint
        Returns (K, 2) m, the waypoints that end leg number i.
    uniform
        Returns (K,) from 0 to 1, where the speed of leg i lies between the two.

    Returns
    -------
    (T, K, 2) array, m.

    Raises
    ------
    ValueError
        The users come to too many waypoints.
    """
    low, high = speed_mps
    track = np.repeat(start[None], slots, axis=0)
    if high == 0.0 or slots == 1:
        return track
    clock = slot_s * np.arange(slots)
    begin, here = np.zeros(len(start)), start
    for leg in range(MOST_LEGS):
        target = waypoint(leg)
        speed = low + (high - low) * uniform(leg)
        walk = np.linalg.norm(target - here, axis=1) / speed
        # Slots within this leg, or at rest after it; later ones are put right by later legs.
        passed = (clock[:, None] - begin) / np.where(walk > 0, walk, 1.0)
        share = np.clip(np.where(walk > 0, passed, 1.0), 0.0, 1.0)[..., None]
        on_way = clock[:, None] >= begin
        track[on_way] = ((1.0 - share) * here + share * target)[on_way]
        begin, here = begin + walk + pause_s, target
        if begin.min() > clock[-1]:
            return track
    raise ValueError(
        f"users.motion.speed_mps: {high:g} m/s over {clock[-1]:g} s comes to more than {MOST_LEGS} "
        "waypoints, must be slower, or slot_s shorter"
    )


def read_tracks(
    path: str | os.PathLike[str], slots: int, users: int, area: Area | None = None
) -> FloatArray:
    """Return the positions (T, K, 2) of a CSV file with the columns user, slot, x_m, y_m.

    Parameters
    ----------
    path
        CSV file; one line for each user and slot, in any order.
    slots, users
        T and K; both are counted from 0. Later slots in the file are left out.
    area
        Where users may be; None for anywhere.

    Raises
    ------
    FormatError
        The file is no such CSV file, names a user that does not exist, has a position that is no
        number or outside of the area, or has none or two for a user in a slot.
    """
    track = np.full((slots, users, 2), np.nan)
    for line, (user, slot, x, y) in csv_rows(path, COLUMNS):
        if not (user.isascii() and user.isdigit() and int(user[:19]) < users):
            allowed = f"an integer from 0 to {users - 1}"
            raise FormatError(
                path, f"line {line}, field 'user': {shown(user)} is not allowed, must be {allowed}"
            )
        if not (slot.isascii() and slot.isdigit()):
            raise FormatError(
                path,
                f"line {line}, field 'slot': {shown(slot)} is not allowed, must be an integer >= 0",
            )
        point = [_coordinate(path, line, n, v) for n, v in (("x_m", x), ("y_m", y))]
        if area is not None and not (
            area[0] <= point[0] <= area[2] and area[1] <= point[1] <= area[3]
        ):
            raise FormatError(
                path,
                f"line {line}: user {user} in slot {slot} is at ({point[0]:g}, {point[1]:g}), "
                f"outside of area_m = [{', '.join(f'{a:g}' for a in area)}]",
            )
        t, k = int(slot[:19]), int(user)
        if t >= slots:
            continue
        if not np.isnan(track[t, k, 0]):
            raise FormatError(
                path, f"line {line}: user {k} has a second position in slot {t}, one is allowed"
            )
        track[t, k] = point
    absent = np.argwhere(np.isnan(track[:, :, 0]))
    if len(absent):
        t, k = absent[0].tolist()
        raise FormatError(
            path,
            f"user {k} has no position in slot {t}, must have one in each of slots 0 to "
            f"{slots - 1}",
        )
    return track


def _coordinate(path: str | os.PathLike[str], line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not abs(value) <= FARTHEST_M:
        raise FormatError(
            path,
            f"line {line}, field {name!r}: {shown(text)} is not allowed, must be a number of "
            f"metres within {FARTHEST_M:g}",
        )
    return value
