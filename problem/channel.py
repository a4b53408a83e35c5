"""Channels drawn: path loss, shadowing, Rician or Rayleigh fading over slots, error of the CSI.

Channels are amplitude gains: norm(h)^2 is a power gain, and E norm(h)^2 = A gain. Three generators
(large scale, fading, CSI error) let a study vary one of them and keep the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, checked, checked_number
from finecast.problem.network import checked_positions, db_to_linear
from finecast.problem.pathloss import (
    ENVIRONMENTS,
    SHORTEST_DISTANCE_M,
    Environment,
    EnvironmentName,
    los_probability,
    path_loss_db,
)

LineOfSight = Literal["mixture", "los", "nlos"]


@dataclass(frozen=True, eq=False)
class Channels:
    """Channels from N nodes with A antennas each to K users in T slots.

    Attributes
    ----------
    estimate
        (T, K, N, A) complex amplitude gain, what is known.
    error
        (T, K, N) amplitude gain, radius of the ball around each node's estimate.
    true
        (T, K, N, A) complex amplitude gain, within the balls.
    los
        (K, N) bool, line of sight.
    gain_db
        (K, N) power gain per antenna, path loss and shadowing together; negative.

    Raises
    ------
    ValueError
        A shape or value is not allowed, or a true channel lies outside its ball.
    """

    estimate: ComplexArray
    error: FloatArray
    true: ComplexArray
    los: BoolArray
    gain_db: FloatArray

    def __post_init__(self) -> None:
        shape = np.shape(self.estimate)
        if len(shape) != 4:
            raise ValueError(f"estimate: shape is {shape}, expected (T, K, N, A)")
        arrays = {
            "estimate": checked("estimate", self.estimate, "complex", shape),
            "error": checked("error", self.error, "float", shape[:3], low=0.0),
            "true": checked("true", self.true, "complex", shape),
            "los": checked("los", self.los, "bool", shape[1:3]),
            "gain_db": checked("gain_db", self.gain_db, "float", shape[1:3]),
        }
        distance = np.linalg.norm(arrays["true"] - arrays["estimate"], axis=3)
        outside = np.argwhere(distance > arrays["error"])
        if len(outside):
            t, k, n = (int(index) for index in outside[0])
            raise ValueError(
                f"true[{t}, {k}, {n}]: {distance[t, k, n]:.17g} from the estimate is not allowed, "
                f"must be <= error = {arrays['error'][t, k, n]:.17g}"
            )
        for name, array in arrays.items():
            object.__setattr__(self, name, array)


def draw_channels(
    node_position: ArrayLike,
    user_position: ArrayLike,
    *,
    large_scale_rng: np.random.Generator,
    fading_rng: np.random.Generator,
    error_rng: np.random.Generator,
    slots: int,
    antennas: int,
    environment: EnvironmentName | Literal["iid"] = "umi",
    carrier_ghz: float = 3.5,
    los: LineOfSight = "mixture",
    shadowing: bool = True,
    correlation: float = 0.0,
    error: float = 0.0,
    gain_db: float = -100.0,
    array_spacing_wavelengths: float = 0.5,
    node_height_m: float | None = None,
    user_height_m: float = 1.5,
) -> Channels:
    """Return channels over slots of users who stay where they are.

    Per link, with power gain G = 10^(-(path loss + shadowing) / 10) and K factor kappa,

        h_t = sqrt(G) (sqrt(kappa / (kappa + 1)) exp(j phi) a + s_t / sqrt(kappa + 1))
        s_t = c s_{t-1} + sqrt(1 - c^2) z_t,    s_0, z_t ~ CN(0, I),

    where a is the steering vector of a uniform linear array in a random horizontal direction;
    kappa = 0 without line of sight. A longer horizon begins like a shorter one.

    Parameters
    ----------
    node_position, user_position
        (N, 2) and (K, 2) m.
    large_scale_rng
        Line of sight, shadowing, K factors, array directions.
    fading_rng
        Phases and scattering.
    error_rng
        Where the true channel lies in its ball.
    slots, antennas
        T and A.
    environment
        `umi`, `uma`, `simple`; or `iid`: Rayleigh with one gain everywhere, positions ignored.
    carrier_ghz
        Carrier frequency.
    los
        `mixture` draws line of sight per link, `los` and `nlos` set it for all.
    shadowing
        Whether to add log-normal shadowing, per node correlated between users by distance.
    correlation
        c, of the scattering from one slot to the next, 0 to 1.
    error
        Radius of every error ball relative to the norm of the estimate, >= 0.
    gain_db
        Power gain per antenna of every link of `iid`, -500 to 500 dB; unused elsewhere.
    array_spacing_wavelengths
        Distance between neighbouring antennas.
    node_height_m, user_height_m
        Antenna heights; None for the usual one of the environment.

    Raises
    ------
    ValueError
        A parameter is out of range; one line says which and what is allowed.
    """
    node = checked_positions("node_position", node_position)
    user = checked_positions("user_position", user_position)
    for name, count in (("slots", slots), ("antennas", antennas)):
        if count < 1:
            raise ValueError(f"{name}: {count} is not allowed, must be >= 1")
    if environment not in ("iid", *ENVIRONMENTS):
        allowed = ", ".join(("iid", *ENVIRONMENTS))
        raise ValueError(f"environment: {environment!r} is not allowed, must be one of {allowed}")
    if los not in get_args(LineOfSight):
        raise ValueError(f"los: {los!r} is not allowed, must be one of mixture, los, nlos")
    if los == "los" and environment in ("iid", "simple"):
        raise ValueError(f"los: 'los' is not allowed with environment {environment!r}")
    spacing = checked_number("array_spacing_wavelengths", array_spacing_wavelengths, above=0.0)
    coefficient = checked_number("correlation", correlation, low=0.0, high=1.0)
    relative_error = checked_number("error", error, low=0.0)

    links = (len(user), len(node))
    if environment == "iid":
        in_sight = np.zeros(links, dtype=np.bool_)
        link_gain_db = np.full(links, checked_number("gain_db", gain_db, low=-500.0, high=500.0))
        steering = np.ones((*links, antennas), dtype=np.complex128)
        rician = np.zeros(links)
    else:
        usual = ENVIRONMENTS[environment]
        offset = user[:, None] - node  # (K, N, 2)
        distance = np.maximum(np.linalg.norm(offset, axis=2), SHORTEST_DISTANCE_M)
        uniform = large_scale_rng.random(links)  # drawn in every case, to leave the rest alone
        in_sight = (
            uniform < los_probability(environment, distance)
            if los == "mixture"
            else np.full(links, los == "los")
        )
        shadow_db = _shadowing_db(large_scale_rng, usual, user, in_sight)
        loss_db = path_loss_db(
            environment,
            in_sight,
            distance,
            carrier_ghz,
            node_height_m=node_height_m,
            user_height_m=user_height_m,
        )
        link_gain_db = -loss_db - shadow_db if shadowing else -loss_db
        rician_db = usual.rician_mean_db + usual.rician_sigma_db * (
            large_scale_rng.standard_normal(links)
        )
        rician = np.where(in_sight, db_to_linear(rician_db), 0.0)
        direction = 2.0 * np.pi * large_scale_rng.random(len(node))
        axis = np.stack([np.cos(direction), np.sin(direction)], axis=1)  # (N, 2)
        height = usual.node_height_m if node_height_m is None else node_height_m
        slant = np.hypot(distance, height - user_height_m)
        cosine = np.sum(offset * axis, axis=2) / slant  # angle between array and user
        steering = np.exp(2j * np.pi * spacing * cosine[..., None] * np.arange(antennas))

    phase = np.exp(2j * np.pi * fading_rng.random(links))[..., None]
    scattered = _gauss_markov(fading_rng, slots, (*links, antennas), coefficient)
    direct_share = np.sqrt(rician / (rician + 1.0))[..., None]
    scattered_share = np.sqrt(1.0 / (rician + 1.0))[..., None]
    amplitude = np.sqrt(db_to_linear(link_gain_db))[..., None]
    estimate = amplitude * (direct_share * phase * steering + scattered_share * scattered)
    radius = relative_error * np.linalg.norm(estimate, axis=3)
    true = draw_true_channel(error_rng, estimate, radius)
    return Channels(estimate, radius, true, in_sight, link_gain_db)


def draw_true_channel(
    rng: np.random.Generator, estimate: ComplexArray, error: FloatArray
) -> ComplexArray:
    """Return estimate + d with d uniform in the complex ball of radius `error`, never outside.

    A uniform point of the unit ball of C^A is the first A coordinates of a uniform point of the
    unit sphere of C^(A+1) (Barthe, Guedon, Mendelson, Naor, Annals of Probability 33, 2005).

    Parameters
    ----------
    rng
        Source of randomness.
    estimate
        (..., A) complex, amplitude gain.
    error
        (...) radius, amplitude gain.

    Returns
    -------
    ComplexArray
        (..., A) complex, amplitude gain; equal to the estimate where the error is 0.
    """
    *leading, antennas = estimate.shape
    normal = _complex_normal(rng, (*leading, antennas + 1))
    unit = normal[..., :antennas] / np.linalg.norm(normal, axis=-1, keepdims=True)
    # The sum below is rounded: keep it inside by that much.
    rounding = 4.0 * np.finfo(np.float64).eps * (np.linalg.norm(estimate, axis=-1) + error)
    radius = np.maximum(0.0, error * (1.0 - 1e-12) - rounding)
    return np.asarray(estimate + radius[..., None] * unit)


def _gauss_markov(
    rng: np.random.Generator, slots: int, shape: tuple[int, ...], coefficient: float
) -> ComplexArray:
    """Return (T, ...) stationary CN(0, 1) with correlation c^|t - t'| between slots."""
    scattered = _complex_normal(rng, (slots, *shape))
    for t in range(1, slots):
        scattered[t] *= np.sqrt(1.0 - coefficient**2)
        scattered[t] += coefficient * scattered[t - 1]
    return scattered


def _complex_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> ComplexArray:
    """Return CN(0, 1): real and imaginary part of variance 1/2 each."""
    parts = rng.standard_normal((*shape, 2)) * np.sqrt(0.5)
    return np.asarray(parts[..., 0] + 1j * parts[..., 1])


def _shadowing_db(
    rng: np.random.Generator, usual: Environment, user: FloatArray, in_sight: BoolArray
) -> FloatArray:
    """Return (K, N) shadowing in dB, per node with covariance sigma^2 exp(-distance / d_corr).

    Users in sight of a node share one random field, the others a second, independent one
    (TR 38.901 section 7.4.4).
    """
    apart = np.linalg.norm(user[:, None] - user, axis=2)  # (K, K) m
    jitter = 1e-9  # users on one spot make the covariance singular
    fields = []
    for sigma_db, distance_m in (
        (usual.los_shadowing_db, usual.los_shadowing_distance_m),
        (usual.nlos_shadowing_db, usual.nlos_shadowing_distance_m),
    ):
        covariance = (np.exp(-apart / distance_m) + jitter * np.eye(len(user))) / (1.0 + jitter)
        root = np.linalg.cholesky(covariance)
        fields.append(sigma_db * (root @ rng.standard_normal(in_sight.shape)))
    return np.where(in_sight, fields[0], fields[1])
