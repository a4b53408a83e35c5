"""Fast max-min multicast beamforming for batches of user groups, with certified bounds.

    maximise over w   min_k  max(0, |sum_n g_{k,n}^H w_n| - sum_n eps_{k,n} norm(w_n))^2
    subject to        norm(w_n)^2 <= P_n

(docs/formulation.md section 3). The search is `search.py`, for a handful of problems `single.py`;
the bounds are `certificate.py` (free, from the last iterate), `interior_point.py` (the optimum of
the relaxation) and `branching.py` (where errors make the relaxation loose).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from finecast.solvers.beamforming.kernel.branching import branch
from finecast.solvers.beamforming.kernel.candidates import Carried
from finecast.solvers.beamforming.kernel.certificate import (
    BeamDual,
    Certificate,
    closed,
    guess_from_beams,
)
from finecast.solvers.beamforming.kernel.gram import ScaledGroups, scaled
from finecast.solvers.beamforming.kernel.inputs import Inputs, checked_inputs
from finecast.solvers.beamforming.kernel.interior_point import refine
from finecast.solvers.beamforming.kernel.search import search, search_again
from finecast.solvers.beamforming.kernel.single import solve_few

AGAIN = 4
"""How many times `starts` are tried again, with a tolerance, where the bound stays away."""

CHUNK_BYTES = 2**27
"""Working memory aimed at per chunk of the batch."""


@dataclass(frozen=True)
class MulticastBatch:
    """Beams of a batch of problems, what they guarantee, and what no beams can exceed.

    NumPy arrays if the channels were, else tensors; complex128 and float64.

    Attributes
    ----------
    beamformer
        (B, N, A), in the root of the power unit; norm(w_n)^2 <= P_n to 1e-12 relative.
    snr
        (B,) worst-case SNR of the weakest user by the closed form.
    bound
        (B,) certified upper bound on the SNR of any beams.
    """

    beamformer: Any
    snr: Any
    bound: Any


def solve_multicast(
    channel: ArrayLike | Tensor,
    error: ArrayLike | Tensor,
    power: ArrayLike | Tensor,
    *,
    node_mask: ArrayLike | Tensor | None = None,
    user_mask: ArrayLike | Tensor | None = None,
    starts: int = 4,
    tolerance: float | None = None,
    boxes: int = 1,
    dtype: torch.dtype = torch.complex64,
    device: str | torch.device = "cpu",
    seed: int = 0,
    chunk: int | None = None,
) -> MulticastBatch:
    """Find beams for a batch of user groups and certify them.

    Parameters
    ----------
    channel
        (B, K, N, A) complex, channels normalised by the noise amplitude.
    error
        (B, K, N) radii of the error balls in the same unit.
    power
        (B, N) or (N,) power limits.
    node_mask, user_mask
        (B, N) and (B, K) bool; what is masked out counts as absent. Every group needs a user.
    starts
        Candidates carried through the search; twice as many are screened.
    tolerance
        None for the free certificate. Otherwise every bound is lowered until it is within this
        relative distance (on the SNR) of what the beams reach, or of the relaxation's optimum.
    boxes
        With a tolerance, how many boxes of node amplitudes branching may examine per problem
        where errors make the relaxation loose; 1 for none.
    dtype
        Precision of the search, complex64 or complex128; results are float64 in any case.
    device
        Where to compute.
    seed
        Of the random phases that candidates start from.
    chunk
        Problems worked on at a time; chosen from the sizes if None. Bounds memory only.

    Raises
    ------
    ValueError
        Naming the argument that is misshaped, not finite or out of range.
    """
    _check_options(starts, tolerance, boxes, dtype, chunk)
    plain = tolerance is None and node_mask is None and user_mask is None
    if plain and str(device) == "cpu":
        few = solve_few(channel, error, power, starts, seed)
        if few is not None:
            return MulticastBatch(*few)
    inputs = checked_inputs(channel, error, power, node_mask, user_mask, device)
    beamformer, certificate = _solve_all(inputs, starts, tolerance, boxes, dtype, seed, chunk)
    results = (beamformer, certificate.snr, certificate.bound)
    if not isinstance(channel, Tensor):
        return MulticastBatch(*(x.cpu().numpy() for x in results))
    return MulticastBatch(*results)


def certify(
    channel: ArrayLike | Tensor,
    error: ArrayLike | Tensor,
    power: ArrayLike | Tensor,
    *,
    node_mask: ArrayLike | Tensor | None = None,
    user_mask: ArrayLike | Tensor | None = None,
    tolerance: float | None = 1e-3,
    boxes: int = 1,
    starts: int = 4,
    dtype: torch.dtype = torch.complex64,
    device: str | torch.device = "cpu",
    seed: int = 0,
    chunk: int | None = None,
) -> Certificate:
    """Return certified upper bounds with their proofs; arguments as for `solve_multicast`.

    Raises
    ------
    ValueError
        Naming the argument that is misshaped, not finite or out of range.
    """
    inputs = checked_inputs(channel, error, power, node_mask, user_mask, device)
    _check_options(starts, tolerance, boxes, dtype, chunk)
    _, certificate = _solve_all(inputs, starts, tolerance, boxes, dtype, seed, chunk)
    return Certificate(*(getattr(certificate, field.name).cpu() for field in fields(Certificate)))


def worst_case_snr(channel: Tensor, error: Tensor, beamformer: Tensor, users: Tensor) -> Tensor:
    """Return the worst-case SNR (B,) of the weakest of the `users` by the closed form.

    snr_k = max(0, |sum_n g_{k,n}^H w_n| - sum_n eps_{k,n} norm(w_n))^2
    """
    received = channel.conj().flatten(2) @ beamformer.flatten(1)[..., None]
    received = received[..., 0].abs()
    norm = beamformer.abs().square().sum(-1).sqrt()
    amplitude = (received - (error @ norm[..., None])[..., 0]).clamp(min=0)
    return torch.where(users, amplitude, torch.inf).amin(-1) ** 2


def _solve_all(
    inputs: Inputs,
    starts: int,
    tolerance: float | None,
    boxes: int,
    dtype: torch.dtype,
    seed: int,
    chunk: int | None,
) -> tuple[Tensor, Certificate]:
    """Search and certify chunk by chunk."""
    batch, users, nodes, antennas = inputs.channel.shape
    if batch == 0:
        device = inputs.channel.device
        none = torch.zeros(0, dtype=torch.float64, device=device)
        per_user, per_node = (
            none.reshape(0, 1).expand(0, users),
            none.reshape(0, 1).expand(0, nodes),
        )
        beams = torch.zeros(0, nodes, antennas, dtype=torch.complex128, device=device)
        return beams, Certificate(none, none, none, per_user, per_user, per_node, none.long())
    if chunk is None:
        per_problem = 16 * users * (nodes * antennas + 2 * nodes * users)
        per_problem += 32 * starts * users * (users + 2 * nodes)
        chunk = max(1, CHUNK_BYTES // per_problem)
    arrays = [getattr(inputs, field.name) for field in fields(Inputs)]
    parts = [
        _solve(Inputs(*(x[at : at + chunk] for x in arrays)), starts, tolerance, boxes, dtype, seed)
        for at in range(0, batch, chunk)
    ]
    columns = [
        torch.cat([getattr(certificate, field.name) for _, certificate in parts])
        for field in fields(Certificate)
    ]
    return torch.cat([beams for beams, _ in parts]), Certificate(*columns)


def _solve(
    inputs: Inputs,
    starts: int,
    tolerance: float | None,
    boxes: int,
    dtype: torch.dtype,
    seed: int,
) -> tuple[Tensor, Certificate]:
    """Search and certify one chunk."""
    problem = scaled(inputs.channel, inputs.error, inputs.power, inputs.nodes, inputs.users)
    direction, gain, guess = search(problem.group, starts, dtype, seed)
    beams = _beams(problem, direction, gain)
    beamformer = beams * inputs.power.sqrt()[..., None]
    snr = worst_case_snr(inputs.channel, inputs.error, beamformer, inputs.users)

    group = problem.group
    _, received, _ = guess_from_beams(group, direction, gain)
    if not bool((problem.faithful > 0).all()):
        group = group.only(problem.faithful)
    high = torch.ones_like(inputs.power)
    low = torch.zeros_like(high)
    achieved = snr.sqrt() / problem.scale
    bound, proof = closed(group, guess, low, high)
    relaxed = bound
    count = torch.ones(len(snr), dtype=torch.int64, device=snr.device)
    if tolerance is not None:
        aim = tolerance / 2  # on u, half of what it is on u^2
        limit = torch.minimum(bound, problem.single_user / problem.scale)
        open_ = (limit > (1 + aim) * achieved) & (problem.single_user > 0)
        index = open_.nonzero()[:, 0]
        if len(index):
            part = group.take(index)
            found, better = refine(
                part,
                guess.take(index),
                received[index],
                achieved[index],
                low[index],
                high[index],
                aim / 2,
            )
            bound[index] = found
            proof.weight[index] = better.weight
            proof.slope[index] = better.slope
            proof.price[index] = better.price
            limit = torch.minimum(bound, problem.single_user / problem.scale)
            index = (limit > (1 + aim) * achieved).nonzero()[:, 0]
            index = index[problem.single_user[index] > 0]
        if len(index):
            hard = problem.take(index)
            known = Carried(achieved[index, None], direction[index, None], gain[index, None])
            again = search_again(hard.group, known, proof.take(index), AGAIN * starts, dtype, seed)
            other = _beams(hard, *again) * inputs.power[index].sqrt()[..., None]
            value = worst_case_snr(
                inputs.channel[index], inputs.error[index], other, inputs.users[index]
            )
            up = value > snr[index]
            beamformer[index[up]], snr[index[up]] = other[up], value[up]
            achieved = snr.sqrt() / problem.scale
        relaxed = bound.clone()
        if boxes > 1:
            limit = torch.minimum(bound, problem.single_user / problem.scale)
            open_ = (limit > (1 + aim) * achieved) & (group.error > 0).any(-1).any(-1)
            index = (open_ & (problem.single_user > 0)).nonzero()[:, 0]
            if len(index):
                found, used = branch(
                    group.take(index),
                    proof.take(index),
                    received[index],
                    achieved[index],
                    bound[index],
                    aim,
                    boxes,
                )
                bound[index] = torch.minimum(bound[index], found)
                count[index] = used
    return beamformer, _certificate(inputs, problem, snr, relaxed, bound, proof, count)


def _certificate(
    inputs: Inputs,
    problem: ScaledGroups,
    snr: Tensor,
    relaxed: Tensor,
    bound: Tensor,
    proof: BeamDual,
    boxes: Tensor,
) -> Certificate:
    """Bring bounds and proofs back to the caller's units; roundings are in the allowance."""
    up = 1 + 1e-14
    scale = problem.scale
    relaxation = torch.maximum((relaxed * scale * up) ** 2, snr)
    bound = torch.minimum((bound * scale * up) ** 2, problem.single_user**2)
    powered = (inputs.power > 0) & inputs.nodes
    price = proof.price * scale[:, None] / torch.where(powered, inputs.power, 1.0)
    return Certificate(
        snr,
        relaxation,
        torch.minimum(torch.maximum(bound, snr), relaxation),
        proof.weight,
        proof.slope / scale[:, None],
        torch.where(powered, price, torch.inf),
        boxes,
    )


def _beams(problem: ScaledGroups, direction: Tensor, gain: Tensor) -> Tensor:
    """Return the beams (B, N, A) for unit powers, full or no power where that is better."""
    combined = (direction[:, None, None] @ problem.channel.permute(0, 2, 1, 3))[:, :, 0]
    beams = combined * gain[..., None]
    norm = beams.abs().square().sum(-1, keepdim=True).sqrt()
    unit = beams / torch.where(norm > 0, norm, 1.0)
    norm = norm.clamp(max=1)
    users = problem.group.present > 0
    if not bool((problem.group.error > 0).any()):
        return unit
    choices = torch.stack([unit * norm, unit * (norm > 0.5), unit], 1)
    values = torch.stack(
        [
            worst_case_snr(problem.channel, problem.group.error, choices[:, i], users)
            for i in range(choices.shape[1])
        ],
        1,
    )
    row = torch.arange(len(values), device=values.device)
    return choices[row, values.argmax(1)]


def _check_options(
    starts: int, tolerance: float | None, boxes: int, dtype: torch.dtype, chunk: int | None
) -> None:
    if starts < 1:
        raise ValueError(f"starts: {starts} is not allowed, must be >= 1")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance: {tolerance} is not allowed, must be > 0 or None")
    if boxes < 1:
        raise ValueError(f"boxes: {boxes} is not allowed, must be >= 1")
    if dtype not in (torch.complex64, torch.complex128):
        raise ValueError(f"dtype: {dtype} is not allowed, must be complex64 or complex128")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: {chunk} is not allowed, must be >= 1")
