"""Beamforming methods by name, and many messages at once by any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray
from finecast.solvers.beamforming.kernel.single import Few, solve_few
from finecast.solvers.beamforming.worst_case import Multicast
from finecast.solvers.rounding import ROUNDOFF

if TYPE_CHECKING:
    from finecast.solvers.beamforming.kernel.certificate import Certificate

KERNEL = "multicast"
"""The batched kernel, the default; the others solve one message at a time."""

_ONE_BY_ONE = {
    "sca": "finecast.solvers.beamforming.sca:solve_sca",
    "sdr": "finecast.solvers.beamforming.sdr:solve_sdr",
    "sprocedure": "finecast.solvers.beamforming.sprocedure:solve_sprocedure",
    "wmmse": "finecast.solvers.beamforming.wmmse:solve_wmmse_single",
    "matched": "finecast.solvers.beamforming.matched:solve_matched",
}

TOLERANCE = 1e-3
"""Bounds on the SNR are lowered until they are within this of what the beams reach, if they can."""

BOXES = 16
"""Boxes of node amplitudes that branching may examine where errors make the relaxation loose."""

NAMES = (KERNEL, *_ONE_BY_ONE)


@dataclass(frozen=True)
class Proof:
    """Dual points of B messages, in the caller's units.

    Over the nodes with power, sum_k slope_k g_k g_k^H <= blockdiag_n(price_n I).

    Parameters
    ----------
    weight, slope
        (B, K) lambda, in the simplex, and alpha; 0 for users left out.
    price
        (B, N) D; infinite at nodes without power.
    """

    weight: FloatArray
    slope: FloatArray
    price: FloatArray


@dataclass(frozen=True)
class Beams:
    """Beams of B messages, each alone on the air.

    Parameters
    ----------
    beamformer
        (B, N, A), square root of watt.
    snr
        (B,) guaranteed SNR; 0 where it is no more than rounding.
    bound
        (B,) certified upper bound on the guaranteed SNR of any beam.
    proof
        Dual points of the relaxation. The bound is no larger than what they prove.
    """

    beamformer: ComplexArray
    snr: FloatArray
    bound: FloatArray
    proof: Proof


def solve_messages(
    name: str,
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    *,
    node_mask: BoolArray,
    user_mask: BoolArray,
    starts: int = 4,
    seed: int = 0,
    tight: bool = True,
) -> Beams:
    """Return beams and certified bounds of many messages.

    Parameters
    ----------
    name
        One of `NAMES`. The bounds are the kernel's in every case.
    channel, error
        (B, K, N, A) and (B, K, N), normalised by the noise amplitude.
    power
        (N,) W.
    node_mask, user_mask
        (B, N) and (B, K), who sends and who listens.
    starts
        Starts of the kernel's search; 0 for one try alone, from equal phases, if not `tight`.
    seed
        Seed of random starts.
    tight
        Lower the bounds as far as possible. Otherwise they are whatever comes for free.

    Raises
    ------
    ValueError
        There is no such method.
    """
    check_name(name)
    tolerance = TOLERANCE if tight else None
    # A few problems are quickly solved one by one, and most of these are proven on the way.
    found = solve_few(channel, error, power, starts, seed, node_mask, user_mask)
    if found is None:
        found = Few.room(channel.shape)
    left = found.loose(tolerance)
    if len(left):
        batch = _in_batch(
            channel[left], error[left], power, node_mask[left], user_mask[left],
            starts=starts, tolerance=tolerance, seed=seed,
        )  # fmt: skip
        found.put(left, batch)
    beamformer, snr = found.beamformer, found.snr
    if name != KERNEL:
        solve_one = _load(name)
        beamformer, snr = np.zeros_like(beamformer), np.zeros_like(snr)
        for b in range(len(channel)):
            nodes, users = np.flatnonzero(node_mask[b]), np.flatnonzero(user_mask[b])
            answer = solve_one(
                channel[b][np.ix_(users, nodes)],
                error[b][np.ix_(users, nodes)],
                power[nodes],
                seed=seed,
            )
            beamformer[b, nodes], snr[b] = answer.beamformer, answer.snr
    proof = Proof(found.weight, found.slope, found.price)
    return _beams(channel, error, user_mask, beamformer, snr, found.bound, proof)


def _in_batch(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    node_mask: BoolArray,
    user_mask: BoolArray,
    *,
    starts: int,
    tolerance: float | None,
    seed: int,
) -> Few:
    """Return what the batched kernel finds, which comes with torch."""
    from finecast.solvers.beamforming.kernel.multicast import MulticastOptions, solve_and_certify

    with one_thread():
        batch, found = solve_and_certify(
            channel,
            error,
            power,
            MulticastOptions(starts=starts, tolerance=tolerance, boxes=BOXES, seed=seed),
            node_mask=node_mask,
            user_mask=user_mask,
        )
    return Few(np.asarray(batch.beamformer), np.asarray(batch.snr), *_bound_and_proof(found))


def _bound_and_proof(
    found: Certificate,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return bound, weight, slope and price as NumPy arrays."""
    return (
        found.bound.numpy(), found.weight.numpy(), found.slope.numpy(), found.price.numpy()
    )  # fmt: skip


def prove_again(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    *,
    node_mask: BoolArray,
    user_mask: BoolArray,
    beamformer: ComplexArray,
    proof: Proof,
) -> Beams:
    """Return what beams reach and what bounds them, from beams and proofs that were kept.

    Parameters
    ----------
    channel, error, power, node_mask, user_mask
        As in `solve_messages`.
    beamformer
        (B, N, A) finite, within the powers.
    proof
        Guesses of dual points: whatever they are, the bounds hold.
    """
    from finecast.solvers.beamforming.kernel.again import certify_again
    from finecast.solvers.beamforming.kernel.multicast import MulticastOptions

    with one_thread():
        found = certify_again(
            channel,
            error,
            power,
            MulticastOptions(tolerance=TOLERANCE, boxes=BOXES),
            node_mask=node_mask,
            user_mask=user_mask,
            beamformer=beamformer,
            **vars(proof),
        )
    bound, *dual = _bound_and_proof(found)
    snr = found.snr.numpy()
    return _beams(channel, error, user_mask, beamformer, snr, bound, Proof(*dual))


def _beams(
    channel: ComplexArray,
    error: FloatArray,
    user_mask: BoolArray,
    beamformer: ComplexArray,
    snr: FloatArray,
    bound: FloatArray,
    proof: Proof,
) -> Beams:
    """Return beams with their certificate; what is no more than rounding reaches nobody."""
    snr = np.where(_reaches(channel, error, beamformer, user_mask), snr, 0.0)
    return Beams(beamformer, snr, bound, proof)


def _reaches(
    channel: ComplexArray, error: FloatArray, beamformer: ComplexArray, user_mask: BoolArray
) -> BoolArray:
    """Return (B,) whether a beam guarantees every user more than rounding.

    Where errors leave nothing of a channel, the difference of two equal numbers is rounding. The
    judge, who rounds otherwise, may find no rate at all there.

    Parameters
    ----------
    channel, error, user_mask
        As in `solve_messages`.
    beamformer
        (B, N, A).
    """
    batch, users, nodes, antennas = channel.shape
    flat = channel.conj().reshape(batch, users, nodes * antennas)
    amplitude = np.abs(flat @ beamformer.reshape(batch, -1, 1))[..., 0]
    norm = np.linalg.norm(beamformer, axis=2)[..., None]
    spread = (error @ norm)[..., 0]
    moduli = (np.linalg.norm(channel, axis=3) @ norm)[..., 0] + spread
    slack = 4 * (nodes * antennas + 16) * ROUNDOFF * moduli
    return np.asarray(((amplitude - spread > slack) | ~user_mask).all(axis=1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch on one thread: on matrices this small, two are many times slower than one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check_name(name: str) -> None:
    """Refuse an unknown method.

    Raises
    ------
    ValueError
        There is no such method.
    """
    if name not in NAMES:
        raise ValueError(f"beamforming: {name!r} is unknown, expected one of {', '.join(NAMES)}")


def _load(name: str) -> Callable[..., Multicast]:
    module, function = _ONE_BY_ONE[name].split(":")
    loaded: Callable[..., Multicast] = getattr(import_module(module), function)
    return loaded
