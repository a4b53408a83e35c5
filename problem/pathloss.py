"""Path loss and line-of-sight probability of 3GPP TR 38.901, outdoor users.

Urban micro (UMi street canyon) and urban macro (UMa) follow TR 38.901 V16.1 tables 7.4.1-1 and
7.4.2-1 with the standard deviations, correlation distances and K factors of tables 7.4.1-1 and
7.5-6. `simple` is the macro model 128.1 + 37.6 log10(d / km) of TR 36.814, at 2 GHz, without
line of sight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import FloatArray, checked, checked_number

EnvironmentName = Literal["umi", "uma", "simple"]

SPEED_OF_LIGHT = 3.0e8
"""m/s, rounded as in TR 38.901 table 7.4.1-1, note 1."""

SHORTEST_DISTANCE_M = 10.0
"""The formulas hold from 10 m on; whoever is nearer is treated as at 10 m."""


@dataclass(frozen=True)
class Environment:
    """What an environment fixes besides its path loss formula.

    Attributes
    ----------
    node_height_m, inter_site_distance_m, min_distance_m
        Usual antenna height, node spacing and smallest horizontal distance to a user.
    los_shadowing_db, nlos_shadowing_db
        Standard deviation of the log-normal shadowing.
    los_shadowing_distance_m, nlos_shadowing_distance_m
        Distance over which the correlation of the shadowing falls to 1/e.
    rician_mean_db, rician_sigma_db
        K factor of a line-of-sight link, normal in dB; minus infinity is Rayleigh.
    """

    node_height_m: float
    inter_site_distance_m: float
    min_distance_m: float
    los_shadowing_db: float
    nlos_shadowing_db: float
    los_shadowing_distance_m: float
    nlos_shadowing_distance_m: float
    rician_mean_db: float
    rician_sigma_db: float


ENVIRONMENTS: dict[str, Environment] = {
    "umi": Environment(
        node_height_m=10.0,
        inter_site_distance_m=200.0,
        min_distance_m=10.0,
        los_shadowing_db=4.0,
        nlos_shadowing_db=7.82,
        los_shadowing_distance_m=10.0,
        nlos_shadowing_distance_m=13.0,
        rician_mean_db=9.0,
        rician_sigma_db=5.0,
    ),
    "uma": Environment(
        node_height_m=25.0,
        inter_site_distance_m=500.0,
        min_distance_m=35.0,
        los_shadowing_db=4.0,
        nlos_shadowing_db=6.0,
        los_shadowing_distance_m=37.0,
        nlos_shadowing_distance_m=50.0,
        rician_mean_db=9.0,
        rician_sigma_db=3.5,
    ),
    "simple": Environment(
        node_height_m=25.0,
        inter_site_distance_m=500.0,
        min_distance_m=35.0,
        los_shadowing_db=8.0,
        nlos_shadowing_db=8.0,
        los_shadowing_distance_m=50.0,
        nlos_shadowing_distance_m=50.0,
        rician_mean_db=-math.inf,
        rician_sigma_db=0.0,
    ),
}


def environment_of(name: str) -> Environment:
    """Return the constants of an environment.

    Raises
    ------
    ValueError
        There is no such environment.
    """
    if name not in ENVIRONMENTS:
        allowed = ", ".join(get_args(EnvironmentName))
        raise ValueError(f"environment: {name!r} is not allowed, must be one of {allowed}")
    return ENVIRONMENTS[name]


def breakpoint_distance_m(
    carrier_ghz: float, node_height_m: float, user_height_m: float = 1.5
) -> float:
    """Return d_BP = 4 (h_b - 1)(h_u - 1) f / c in m, with 1 m of effective environment height."""
    return 4.0 * (node_height_m - 1.0) * (user_height_m - 1.0) * carrier_ghz * 1e9 / SPEED_OF_LIGHT


def path_loss_db(
    environment: EnvironmentName,
    los: ArrayLike,
    distance_2d_m: ArrayLike,
    carrier_ghz: float,
    *,
    node_height_m: float | None = None,
    user_height_m: float = 1.5,
) -> FloatArray:
    """Return the path loss in dB, without shadowing (TR 38.901 table 7.4.1-1).

    With d3 the slant distance in m, f the carrier in GHz and h = h_b - h_u:

        UMi LOS   32.4 + 21 log10 d3 + 20 log10 f                            up to d_BP
                  32.4 + 40 log10 d3 + 20 log10 f - 9.5 log10(d_BP^2 + h^2)  beyond
        UMi NLOS  max(LOS, 22.4 + 35.3 log10 d3 + 21.3 log10 f - 0.3 (h_u - 1.5))
        UMa LOS   28.0 + 22 log10 d3 + 20 log10 f                            up to d_BP
                  28.0 + 40 log10 d3 + 20 log10 f - 9 log10(d_BP^2 + h^2)    beyond
        UMa NLOS  max(LOS, 13.54 + 39.08 log10 d3 + 20 log10 f - 0.6 (h_u - 1.5))
        simple    128.1 + 37.6 log10(d2 / km), whatever the carrier, the heights and `los`

    Parameters
    ----------
    environment
        `umi`, `uma` or `simple`.
    los
        Line of sight or not, bool, broadcast against the distances.
    distance_2d_m
        Horizontal distances in m, >= 0; below 10 m counts as 10 m.
    carrier_ghz
        Carrier frequency, 0.5 to 100 GHz.
    node_height_m
        Antenna height of the nodes, above 1 m; None for the usual one of the environment.
    user_height_m
        Antenna height of the users, 1.5 to 13 m; higher up the UMa break point is random.

    Raises
    ------
    ValueError
        A parameter is out of range.
    """
    usual = environment_of(environment)
    in_sight = checked("los", los, "bool", np.shape(los))
    d2 = checked("distance_2d_m", distance_2d_m, "float", np.shape(distance_2d_m), low=0.0)
    d2, in_sight = np.broadcast_arrays(np.maximum(d2, SHORTEST_DISTANCE_M), in_sight)
    f = checked_number("carrier_ghz", carrier_ghz, low=0.5, high=100.0)
    if node_height_m is None:
        node_height_m = usual.node_height_m
    h_b = checked_number("node_height_m", node_height_m, above=1.0)
    h_u = checked_number("user_height_m", user_height_m, low=1.5, high=13.0)
    if environment == "simple":
        return np.asarray(128.1 + 37.6 * np.log10(d2 / 1000.0))

    h = h_b - h_u
    d3 = np.hypot(d2, h)
    d_bp = breakpoint_distance_m(f, h_b, h_u)
    log_d, log_f, log_bp = np.log10(d3), math.log10(f), math.log10(d_bp**2 + h**2)
    if environment == "umi":
        near = 32.4 + 21.0 * log_d + 20.0 * log_f
        far = 32.4 + 40.0 * log_d + 20.0 * log_f - 9.5 * log_bp
        hidden = 22.4 + 35.3 * log_d + 21.3 * log_f - 0.3 * (h_u - 1.5)
    else:
        near = 28.0 + 22.0 * log_d + 20.0 * log_f
        far = 28.0 + 40.0 * log_d + 20.0 * log_f - 9.0 * log_bp
        hidden = 13.54 + 39.08 * log_d + 20.0 * log_f - 0.6 * (h_u - 1.5)
    clear = np.where(d2 <= d_bp, near, far)
    return np.asarray(np.where(in_sight, clear, np.maximum(clear, hidden)))


def los_probability(environment: EnvironmentName, distance_2d_m: ArrayLike) -> FloatArray:
    """Return the probability of line of sight (TR 38.901 table 7.4.2-1, users up to 13 m high).

        1 up to 18 m, beyond it 18/d2 + exp(-d2/D)(1 - 18/d2), D = 36 m (UMi) or 63 m (UMa);
        0 for `simple`.

    Raises
    ------
    ValueError
        There is no such environment, or a distance is negative.
    """
    environment_of(environment)
    d2 = checked("distance_2d_m", distance_2d_m, "float", np.shape(distance_2d_m), low=0.0)
    if environment == "simple":
        return np.zeros_like(d2)
    share = 18.0 / np.maximum(d2, 18.0)
    decay_m = 36.0 if environment == "umi" else 63.0
    return np.asarray(share + np.exp(-d2 / decay_m) * (1.0 - share))
