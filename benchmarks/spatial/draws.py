"""Random problems of the spatial benchmark.

4 or 6 nodes stand on a hexagonal grid, 200 m apart. Users are uniform in their cells. Channels are
3GPP UMi street canyon without line of sight at 3.5 GHz. Every node has 1 W, 100 MHz and every
block. Block sizes are log-normal (median 1 Gbit, sigma 0.8). Error radii are given as a share of
each node's channel norm.

Groups say whom a message is for:

families  Every user asks for one of the three models of a random family. A family has a block that
          all its models share, and every model has one block of its own. Messages are the distinct
          user groups. A draw is repeated until it has the right number of them.
random    Every message is for 1 to 4 of the users, drawn uniformly. No two messages are for the
          same users.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.channel import draw_channels
from finecast.problem.network import dbm_to_w, drop_users, hexagonal_positions, thermal_noise_w
from finecast.solvers.spatial.multigroup import MultiGroup

SITE_DISTANCE_M = 200.0
"""Distance between neighbouring nodes, m."""

POWER_DBM = 30.0
"""Transmit power of every node, dBm."""

BANDWIDTH_HZ = 100e6
"""Bandwidth of the downlink, Hz."""

NOISE_FIGURE_DB = 9.0
"""Noise figure of every user, dB."""

CARRIER_GHZ = 3.5
"""Carrier frequency, GHz."""

MODELS_PER_FAMILY = 3
"""Models of a family in the groups `families`."""

LARGEST_RANDOM = 4
"""Most users of a message in the groups `random`."""

MEDIAN_BITS = 1e9
"""Median size of a block, bit."""

SPREAD = 0.8
"""Standard deviation of the natural logarithm of a block's size."""


def channels(
    nodes: int, antennas: int, users: int, error: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return normalised channels (K, N, A), error radii (K, N) and powers (N,)."""
    rng = np.random.default_rng(seed)
    position = hexagonal_positions(nodes, SITE_DISTANCE_M)
    noise = thermal_noise_w(BANDWIDTH_HZ, NOISE_FIGURE_DB)
    radius = SITE_DISTANCE_M / np.sqrt(3)
    drawn = draw_channels(
        position,
        drop_users(rng, position, users, cell_radius_m=radius, min_distance_m=10.0),
        large_scale_rng=rng,
        fading_rng=rng,
        error_rng=rng,
        slots=1,
        antennas=antennas,
        environment="umi",
        los="nlos",
        carrier_ghz=CARRIER_GHZ,
    )
    normalised = drawn.estimate[0] / np.sqrt(noise)
    power = np.full(nodes, dbm_to_w(POWER_DBM))
    return normalised, error * np.linalg.norm(normalised, axis=2), power


def families(rng: np.random.Generator, users: int, messages: int) -> np.ndarray:
    """Return (messages, users) bool, the distinct user groups of families and of their models."""
    families = max(2, messages // MODELS_PER_FAMILY)
    for _ in range(100_000):
        family = rng.integers(families, size=users)
        model = family * MODELS_PER_FAMILY + rng.integers(MODELS_PER_FAMILY, size=users)
        groups = np.concatenate(
            [values[:, None] == np.unique(values) for values in (family, model)], 1
        )
        groups = np.unique(groups.T, axis=0)
        if len(groups) == messages:
            return groups
    raise ValueError(f"messages: {messages} of {users} users did not occur in 100000 draws")


def random_groups(rng: np.random.Generator, users: int, messages: int) -> np.ndarray:
    """Return (messages, users) bool, distinct sets of 1 to `LARGEST_RANDOM` users."""
    found: dict[bytes, np.ndarray] = {}
    while len(found) < messages:
        group = np.zeros(users, dtype=bool)
        group[rng.choice(users, rng.integers(1, LARGEST_RANDOM + 1), replace=False)] = True
        found[group.tobytes()] = group
    return np.array(list(found.values()))


def problem_of(
    groups: str, nodes: int, antennas: int, users: int, messages: int, error: float, seed: int
) -> tuple[MultiGroup, np.ndarray]:
    """Return the messages, all of them from all nodes, and their bits."""
    channel, radius, power = channels(nodes, antennas, users, error, seed)
    rng = np.random.default_rng((seed, messages))
    listening = (families if groups == "families" else random_groups)(rng, users, messages)
    everywhere = np.ones((messages, nodes), dtype=bool)
    bits = MEDIAN_BITS * rng.lognormal(0.0, SPREAD, messages)
    return MultiGroup(channel, radius, power, listening, everywhere), bits
