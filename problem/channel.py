"""Channels drawn: path loss, shadowing, Rician or Rayleigh fading over slots, error of the CSI.

Channels are amplitude gains: norm(h)^2 is a power gain, and E norm(h)^2 = A gain. Three generators
(large scale, fading, CSI error) let a study vary one of them and keep the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, checked, checked_number
from finecast.problem.large_scale import LargeScale, LineOfSight, large_scale
from finecast.problem.network import checked_positions, db_to_linear
from finecast.problem.pathloss import ENVIRONMENTS, EnvironmentName


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
        (K, N) bool, line of sight; (T, K, N) of users who move.
    gain_db
        Power gain per antenna, path loss and shadowing together; negative. Likewise.

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
        links = shape[1:3] if np.ndim(self.los) == 2 else shape[:3]
        arrays = {
            "estimate": checked("estimate", self.estimate, "complex", shape),
            "error": checked("error", self.error, "float", shape[:3], low=0.0),
            "true": checked("true", self.true, "complex", shape),
            "los": checked("los", self.los, "bool", links),
            "gain_db": checked("gain_db", self.gain_db, "float", links),
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
    antennas: int | Sequence[int],
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
    """Return channels over slots, of users who stay where they are or move.

    Per link, with power gain G = 10^(-(path loss + shadowing) / 10) and K factor kappa,

        h_t = sqrt(G) (sqrt(kappa / (kappa + 1)) exp(j phi) a + s_t / sqrt(kappa + 1))
        s_t = c s_{t-1} + sqrt(1 - c^2) z_t,    s_0, z_t ~ CN(0, I),

    where a is the steering vector of a uniform linear array in a random horizontal direction;
    kappa = 0 without line of sight. A longer horizon begins like a shorter one. Of users who move,
    G, kappa and a follow (`finecast.problem.large_scale`); c stays what it is.

    Parameters
    ----------
    node_position, user_position
        (N, 2) and (K, 2) m; (T, K, 2) of users who move.
    large_scale_rng
        Line of sight, shadowing, K factors, array directions.
    fading_rng
        Phases and scattering.
    error_rng
        Where the true channel lies in its ball.
    slots
        T.
    antennas
        A, or one number for each node: channels of missing antennas are zero, up to the most.
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
    track = _checked_track(user_position, slots)
    if slots < 1:
        raise ValueError(f"slots: {slots} is not allowed, must be >= 1")
    present = present_antennas(antennas, len(node))
    most = present.shape[1]
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

    links = (track.shape[1], len(node))
    if environment == "iid":
        shape = (1, *links)
        level = checked_number("gain_db", gain_db, low=-500.0, high=500.0)
        large = LargeScale(
            in_sight=np.zeros(shape, dtype=np.bool_),
            gain_db=np.full(shape, level),
            rician=np.zeros(shape),
            steering=np.ones((*shape, most), dtype=np.complex128),
        )
    else:
        large = large_scale(
            large_scale_rng,
            environment,
            node,
            track,
            antennas=most,
            carrier_ghz=carrier_ghz,
            los=los,
            shadowing=shadowing,
            spacing=spacing,
            node_height_m=node_height_m,
            user_height_m=user_height_m,
        )
    rician = large.rician

    phase = np.exp(2j * np.pi * fading_rng.random(links))[..., None]
    scattered = _gauss_markov(fading_rng, slots, (*links, most), coefficient)
    direct_share = np.sqrt(rician / (rician + 1.0))[..., None]
    scattered_share = np.sqrt(1.0 / (rician + 1.0))[..., None]
    amplitude = np.sqrt(db_to_linear(large.gain_db))[..., None]
    estimate = amplitude * (direct_share * phase * large.steering + scattered_share * scattered)
    estimate = np.where(present, estimate, 0.0)
    radius = relative_error * np.linalg.norm(estimate, axis=3)
    true = draw_true_channel(error_rng, estimate, radius, present)
    if len(large.gain_db) == 1:  # the same in every slot
        return Channels(estimate, radius, true, large.in_sight[0], large.gain_db[0])
    return Channels(estimate, radius, true, large.in_sight, large.gain_db)


def present_antennas(antennas: int | Sequence[int], nodes: int) -> BoolArray:
    """Return (N, A) which antennas there are, with A the most of any node.

    Raises
    ------
    ValueError
        A number is below 1, or there is not one for each node.
    """
    counts = np.broadcast_to(antennas, nodes) if np.ndim(antennas) == 0 else np.array(antennas)
    if len(counts) != nodes:
        raise ValueError(f"antennas: has {len(counts)} entries, expected one for each of {nodes}")
    if counts.min() < 1:
        raise ValueError(f"antennas: {counts.min()} is not allowed, must be >= 1")
    return np.asarray(np.arange(counts.max()) < counts[:, None])


def _checked_track(position: ArrayLike, slots: int) -> FloatArray:
    """Return (S, K, 2) m, S = 1 for users who stay where they are."""
    if np.ndim(position) != 3:
        return checked_positions("user_position", position)[None]
    track = np.asarray(position)
    shape = (slots, max(1, track.shape[1]), 2)
    track = checked("user_position", track, "float", shape)
    stay = bool((track == track[:1]).all())
    return track[:1] if stay else track


def draw_true_channel(
    rng: np.random.Generator,
    estimate: ComplexArray,
    error: FloatArray,
    present: BoolArray | None = None,
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
    present
        (..., A) which antennas there are; the ball has no other dimensions. None for all.

    Returns
    -------
    ComplexArray
        (..., A) complex, amplitude gain; equal to the estimate where the error is 0.
    """
    *leading, antennas = estimate.shape
    normal = _complex_normal(rng, (*leading, antennas + 1))
    if present is not None:
        normal[..., :antennas] *= present
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
