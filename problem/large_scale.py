"""Large-scale fading of links: line of sight, path loss, shadowing, K factors, array directions.

Users may move: then all of it follows along their tracks. Shadowing, the state of line of sight and
K factors are Gaussian processes whose correlation falls by exp(-d / d_corr) over the way d from one
slot to the next (M. Gudmundson, Electronics Letters 27, 1991).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray
from finecast.problem.network import db_to_linear
from finecast.problem.pathloss import (
    ENVIRONMENTS,
    SHORTEST_DISTANCE_M,
    EnvironmentName,
    los_probability,
    path_loss_db,
)

LineOfSight = Literal["mixture", "los", "nlos"]

SIGHT_DISTANCE_M = 50.0
"""Correlation distance of the state of line of sight (TR 38.901 table 7.6.3.1-2, UMi and UMa)."""

LIGHT_M_GHZ = 0.299792458
"""Speed of light: metres times GHz."""


@dataclass(frozen=True, eq=False)
class LargeScale:
    """What changes over metres; S = T slots of users who move, or S = 1 for all slots.

    Attributes
    ----------
    in_sight
        (S, K, N) bool.
    gain_db
        (S, K, N), path loss and shadowing; negative.
    rician
        (S, K, N) K factor, 0 without line of sight.
    steering
        (S, K, N, A) phases of the direct path.
    """

    in_sight: BoolArray
    gain_db: FloatArray
    rician: FloatArray
    steering: ComplexArray


def large_scale(
    rng: np.random.Generator,
    environment: EnvironmentName,
    node: FloatArray,
    track: FloatArray,
    *,
    antennas: int,
    carrier_ghz: float,
    los: LineOfSight,
    shadowing: bool,
    spacing: float,
    node_height_m: float | None,
    user_height_m: float,
) -> LargeScale:
    """Draw what changes over metres.

    A longer track begins like a shorter one, and the first slot is that of users who stay.

    Parameters
    ----------
    rng
        Source of randomness.
    environment
        `umi`, `uma` or `simple`.
    node, track
        (N, 2) and (S, K, 2) m.
    antennas
        A.
    carrier_ghz, los, shadowing, node_height_m, user_height_m
        As in `finecast.problem.channel.draw_channels`.
    spacing
        Of antennas, in wavelengths.
    """
    usual = ENVIRONMENTS[environment]
    offset = track[:, :, None] - node  # (S, K, N, 2)
    distance = np.maximum(np.linalg.norm(offset, axis=3), SHORTEST_DISTANCE_M)
    links = distance.shape[1:]
    step = np.linalg.norm(np.diff(track, axis=0), axis=2)  # (S - 1, K)

    # The first slot, in the order in which users who stay have always been drawn.
    uniform = rng.random(links)  # drawn in every case, to leave the rest alone
    fields = (
        (usual.los_shadowing_db, usual.los_shadowing_distance_m),
        (usual.nlos_shadowing_db, usual.nlos_shadowing_distance_m),
    )
    first_shadow = [
        sigma_db * (_root(track[0], distance_m) @ rng.standard_normal(links))
        for sigma_db, distance_m in fields
    ]
    first_factor = rng.standard_normal(links)
    direction = 2.0 * np.pi * rng.random(len(node))

    # Then along the tracks.
    shadow = np.empty((2, *distance.shape))
    factor, sight = np.empty((2, *distance.shape))
    shadow[:, 0], factor[0], sight[0] = first_shadow, first_factor, uniform
    if len(track) > 1:
        from scipy.special import ndtr, ndtri

        state = ndtri(uniform)
        for t, way in enumerate(step, start=1):
            moved = way[:, None] > 0
            state = _onward(state, way, SIGHT_DISTANCE_M, rng.standard_normal(links))
            sight[t] = np.where(moved, ndtr(state), sight[t - 1])
            for field, (sigma_db, distance_m) in zip(shadow, fields, strict=True):
                fresh = sigma_db * (_root(track[t], distance_m) @ rng.standard_normal(links))
                field[t] = _onward(field[t - 1], way, distance_m, fresh)
            factor[t] = _onward(
                factor[t - 1], way, usual.los_shadowing_distance_m, rng.standard_normal(links)
            )

    in_sight = (
        sight < los_probability(environment, distance)
        if los == "mixture"
        else np.full(distance.shape, los == "los")
    )
    loss_db = path_loss_db(
        environment,
        in_sight,
        distance,
        carrier_ghz,
        node_height_m=node_height_m,
        user_height_m=user_height_m,
    )
    rician_db = usual.rician_mean_db + usual.rician_sigma_db * factor
    axis = np.stack([np.cos(direction), np.sin(direction)], axis=1)  # (N, 2)
    height = usual.node_height_m if node_height_m is None else node_height_m
    slant = np.hypot(distance, height - user_height_m)
    cosine = np.sum(offset * axis, axis=3) / slant  # angle between array and user
    steering = np.exp(2j * np.pi * spacing * cosine[..., None] * np.arange(antennas))
    if len(track) > 1:  # the direct path turns by a full angle for each wavelength
        waves = (slant - slant[0]) * carrier_ghz / LIGHT_M_GHZ
        steering = steering * np.exp(-2j * np.pi * waves)[..., None]
    return LargeScale(
        in_sight=in_sight,
        gain_db=-loss_db - np.where(in_sight, *shadow) if shadowing else -loss_db,
        rician=np.where(in_sight, db_to_linear(rician_db), 0.0),
        steering=steering,
    )


def _onward(
    before: FloatArray, way: FloatArray, distance_m: float, fresh: FloatArray
) -> FloatArray:
    """Return (K, N) a stationary process some way (K,) m further, given fresh values of it."""
    kept = np.exp(-way / distance_m)[:, None]
    return np.asarray(kept * before + np.sqrt(1.0 - kept**2) * fresh)


def _root(user: FloatArray, distance_m: float) -> FloatArray:
    """Return (K, K) the root of the covariance exp(-distance / d_corr) between users.

    Users in sight of a node share one random field, the others a second, independent one
    (TR 38.901 section 7.4.4).
    """
    apart = np.linalg.norm(user[:, None] - user, axis=2)  # (K, K) m
    jitter = 1e-9  # users on one spot make the covariance singular
    covariance = (np.exp(-apart / distance_m) + jitter * np.eye(len(user))) / (1.0 + jitter)
    return np.linalg.cholesky(covariance)
