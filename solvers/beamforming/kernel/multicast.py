"""Fast max-min multicast beamforming for batches of user groups, with certified bounds.

    maximise over w   min_k  max(0, |sum_n g_{k,n}^H w_n| - sum_n eps_{k,n} norm(w_n))^2
    subject to        norm(w_n)^2 <= P_n

(docs/formulation.md section 3). The search is in `search.py`, and in `single.py` for a handful of
problems. Bounds come from `certificate.py` (free, from the last iterate), `interior_point.py` (the
optimum of the relaxation) and `branching.py` (where errors make the relaxation loose). Last,
unproven problems are searched at partial power where that can help (`cones.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from finecast.solvers.beamforming.kernel.branching import branch
from finecast.solvers.beamforming.kernel.candidates import Carried
from finecast.solvers.beamforming.kernel.certificate import (
    BeamDual,
    Box,
    Certificate,
    closed,
    coupling,
    guess_from_beams,
)
from finecast.solvers.beamforming.kernel.cones import better_at_partial_power, crowded
from finecast.solvers.beamforming.kernel.gram import Group, ScaledGroups, scaled
from finecast.solvers.beamforming.kernel.inputs import Inputs, checked_inputs
from finecast.solvers.beamforming.kernel.interior_point import Reached, refine
from finecast.solvers.beamforming.kernel.search import (
    phases_at_partial_power,
    search,
    search_again,
)
from finecast.solvers.beamforming.kernel.single import solve_few

AGAIN = 4
"""How many times `starts` are tried again, with a tolerance, where the bound stays away."""

DRAWN = 2
"""How many times `starts` are drawn for second-order cone steps, besides the `starts` sought."""

HOPELESS = 1e-8
"""Nothing is searched or proven for a message whose weakest user can have, alone, no more than this
share of the scale: that is the rounding of a channel's norm less its error."""

CHUNK_BYTES = 2**27
"""Working memory of one chunk of the batch, about."""


@dataclass(frozen=True)
class MulticastOptions:
    """How hard to search and to prove, and where.

    Attributes
    ----------
    starts
        Candidates carried through the search; twice as many are screened. 0 for one try alone,
        from equal phases, for large groups in a hurry; not with a tolerance.
    tolerance
        None for the free certificate. Otherwise every bound is lowered until it is within this
        relative distance (on the SNR) of what the beams reach, or of the relaxation's optimum.
        Where it stays away, beams are searched for again, at partial power too.
    boxes
        With a tolerance, how many boxes of node amplitudes branching may examine per problem
        where errors make the relaxation loose; 1 for none.
    dtype
        Precision of the search, complex64 or complex128; results are float64 in any case.
    device
        Device to compute on.
    seed
        Seed of the random phases that candidates start from.
    chunk
        Number of problems worked on at a time, chosen from the sizes if None. It changes the
        memory that is needed and nothing else.

    Raises
    ------
    ValueError
        Naming the option that is out of range.
    """

    starts: int = 4
    tolerance: float | None = None
    boxes: int = 1
    dtype: torch.dtype = torch.complex64
    device: str | torch.device = "cpu"
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        least_starts = 0 if self.tolerance is None else 1
        for name, least in (("starts", least_starts), ("boxes", 1), ("chunk", 1)):
            count = getattr(self, name)
            if count is not None and count < least:
                raise ValueError(f"{name}: {count} is not allowed, must be >= {least}")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance: {self.tolerance} is not allowed, must be > 0 or None")
        if self.dtype not in (torch.complex64, torch.complex128):
            raise ValueError(f"dtype: {self.dtype} is not allowed, must be complex64 or complex128")


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
    options: MulticastOptions = MulticastOptions(),
    *,
    node_mask: ArrayLike | Tensor | None = None,
    user_mask: ArrayLike | Tensor | None = None,
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
    options
        How hard to search and to prove, and where.
    node_mask, user_mask
        (B, N) and (B, K) bool; what is masked out counts as absent. Every group needs a user.

    Raises
    ------
    ValueError
        Naming the argument that is misshaped, not finite or out of range.

    Examples
    --------
    One EN with two antennas and two users of orthogonal channels, gains 3 and 4. The best beam
    gives both the amplitude 3 * 4 / 5.

    >>> import numpy as np
    >>> channel = np.array([[[[3.0, 0.0]], [[0.0, 4.0]]]])
    >>> answer = solve_multicast(channel, np.zeros((1, 2, 1)), [1.0])
    >>> np.round(answer.snr, 4)
    array([5.76])
    >>> np.round(np.abs(answer.beamformer), 4)
    array([[[0.8, 0.6]]])

    With errors of a tenth, no beam is proven to give more than the bound.

    >>> answer = solve_multicast(channel, np.full((1, 2, 1), 0.1), [1.0])
    >>> np.round(answer.snr, 4), np.round(answer.bound, 4)
    (array([5.29]), array([5.29]))
    """
    if str(options.device) == "cpu" and node_mask is None and user_mask is None:
        few = solve_few(channel, error, power, options.starts, options.seed)
        if few is not None and not len(few.loose(options.tolerance)):
            return MulticastBatch(few.beamformer, few.snr, few.bound)
    inputs = checked_inputs(channel, error, power, node_mask, user_mask, options.device)
    beamformer, certificate = _solve_all(inputs, options)
    results = (beamformer, certificate.snr, certificate.bound)
    if not isinstance(channel, Tensor):
        return MulticastBatch(*(x.cpu().numpy() for x in results))
    return MulticastBatch(*results)


def certify(
    channel: ArrayLike | Tensor,
    error: ArrayLike | Tensor,
    power: ArrayLike | Tensor,
    options: MulticastOptions = MulticastOptions(tolerance=1e-3),
    *,
    node_mask: ArrayLike | Tensor | None = None,
    user_mask: ArrayLike | Tensor | None = None,
) -> Certificate:
    """Return certified upper bounds with their proofs; arguments as for `solve_multicast`.

    Raises
    ------
    ValueError
        Naming the argument that is misshaped, not finite or out of range.

    Examples
    --------
    The dual point proves the bound by itself: its formula (`Certificate`) gives the same number,
    here for one EN, two users of gains 3 and 4, and no errors.

    >>> import numpy as np
    >>> channel = np.array([[[[3.0, 0.0]], [[0.0, 4.0]]]])
    >>> proof = certify(channel, np.zeros((1, 2, 1)), [1.0])
    >>> weight, slope, price = (x.numpy()[0] for x in (proof.weight, proof.slope, proof.price))
    >>> float(np.round((weight**2 / (4 * slope)).sum() + price.sum(), 4))
    2.4
    >>> np.round(np.sqrt(proof.bound.numpy()), 4)
    array([2.4])

    Its condition, that no eigenvalue of sum_k alpha_k g_k g_k^H exceeds D, holds:

    >>> matrix = (slope[:, None, None] * channel[0, :, 0, :, None] * channel[0, :, 0, None]).sum(0)
    >>> bool(np.linalg.eigvalsh(matrix).max() <= price[0])
    True
    """
    inputs = checked_inputs(channel, error, power, node_mask, user_mask, options.device)
    _, certificate = _solve_all(inputs, options)
    return Certificate(*(getattr(certificate, field.name).cpu() for field in fields(Certificate)))


def solve_and_certify(
    channel: ArrayLike,
    error: ArrayLike,
    power: ArrayLike,
    options: MulticastOptions,
    *,
    node_mask: ArrayLike | None = None,
    user_mask: ArrayLike | None = None,
) -> tuple[MulticastBatch, Certificate]:
    """Return the beams of `solve_multicast` with the proofs of `certify`; arguments as there.

    Examples
    --------
    One EN and one user of gain 3: the weight of the only user is 1.

    >>> import numpy as np
    >>> channel = np.array([[[[3.0]]]])
    >>> batch, proof = solve_and_certify(
    ...     channel, np.zeros((1, 1, 1)), [1.0], MulticastOptions(tolerance=1e-3)
    ... )
    >>> np.round(batch.snr, 4), proof.weight.tolist()
    (array([9.]), [[1.0]])
    """
    inputs = checked_inputs(channel, error, power, node_mask, user_mask, options.device)
    beamformer, found = _solve_all(inputs, options)
    proof = Certificate(*(getattr(found, field.name).cpu() for field in fields(Certificate)))
    batch = MulticastBatch(beamformer.cpu().numpy(), proof.snr.numpy(), proof.bound.numpy())
    return batch, proof


def worst_case_snr(channel: Tensor, error: Tensor, beamformer: Tensor, users: Tensor) -> Tensor:
    """Return the worst-case SNR (B,) of the weakest of the `users` by the closed form.

    snr_k = max(0, |sum_n g_{k,n}^H w_n| - sum_n eps_{k,n} norm(w_n))^2

    Parameters
    ----------
    channel, error
        (B, K, N, A) complex and (B, K, N), normalised by the noise amplitude.
    beamformer
        (B, N, A) complex, in the root of the power unit.
    users
        (B, K) bool, who counts.

    Examples
    --------
    One EN with one antenna; the amplitudes are 3 - 0.5 and 4 - 1, the weaker user counts.

    >>> channel = torch.tensor([[[[3.0]], [[4.0]]]], dtype=torch.complex128)
    >>> error = torch.tensor([[[0.5], [1.0]]], dtype=torch.float64)
    >>> beamformer = torch.ones(1, 1, 1, dtype=torch.complex128)
    >>> worst_case_snr(channel, error, beamformer, torch.ones(1, 2, dtype=torch.bool)).tolist()
    [6.25]
    """
    received = channel.conj().flatten(2) @ beamformer.flatten(1)[..., None]
    received = received[..., 0].abs()
    norm = beamformer.abs().square().sum(-1).sqrt()
    amplitude = (received - (error @ norm[..., None])[..., 0]).clamp(min=0)
    return torch.where(users, amplitude, torch.inf).amin(-1) ** 2


def _solve_all(inputs: Inputs, options: MulticastOptions) -> tuple[Tensor, Certificate]:
    """Search and certify chunk by chunk."""
    batch, users, nodes, antennas = inputs.channel.shape
    if batch == 0:
        empty = inputs.power.new_zeros(0)
        per_user, per_node = empty.expand(users, 0).T, empty.expand(nodes, 0).T
        beams = inputs.channel.new_zeros(0, nodes, antennas)
        return beams, Certificate(empty, empty, empty, per_user, per_user, per_node, empty.long())
    chunk = options.chunk
    if chunk is None:
        per_problem = 16 * users * (nodes * antennas + 2 * nodes * users)
        per_problem += 32 * options.starts * users * (users + 2 * nodes)
        chunk = max(1, CHUNK_BYTES // per_problem)
    parts = [
        _solve(inputs.take(slice(begin, begin + chunk)), options)
        for begin in range(0, batch, chunk)
    ]
    columns = [
        torch.cat([getattr(certificate, field.name) for _, certificate in parts])
        for field in fields(Certificate)
    ]
    return torch.cat([beams for beams, _ in parts]), Certificate(*columns)


def _solve(inputs: Inputs, options: MulticastOptions) -> tuple[Tensor, Certificate]:
    """Search and certify one chunk."""
    # Beams, judged on the channels as given.
    problem = scaled(inputs.channel, inputs.error, inputs.power, inputs.nodes, inputs.users)
    direction, gain, guess = search(problem.group, options.starts, options.dtype, options.seed)
    beamformer = _beams(problem, direction, gain) * inputs.power.sqrt()[..., None]
    snr = worst_case_snr(inputs.channel, inputs.error, beamformer, inputs.users)

    # The free certificate. Users whose channels were capped in the search do not count in it.
    _, received = guess_from_beams(problem.group, direction, gain)
    group = problem.group
    if not bool((problem.faithful > 0).all()):
        group = group.only(problem.faithful)
    whole = Box.whole(group)
    bound, proof = closed(group, guess, whole)
    relaxed = bound
    boxes = torch.ones(len(snr), dtype=torch.int64, device=snr.device)
    if options.tolerance is not None:
        tolerance = options.tolerance / 2  # on u, half of what it is on u^2
        index = loose(problem, snr, bound, tolerance)
        reached = Reached(snr.sqrt() / problem.scale, received)

        # The relaxation's optimum, where the free certificate is too far above the beams.
        if len(index):
            refined, dual = refine(
                group.take(index),
                guess.take(index),
                reached.take(index),
                whole.take(index),
                tolerance / 2,
            )
            bound, proof = bound.index_copy(0, index, refined), proof.put(index, dual)
            index = loose(problem, snr, bound, tolerance)

        # More beams, from starts that the relaxation gives, where its optimum is too far above.
        if len(index):
            known = Carried(reached.value[index, None], direction[index, None], gain[index, None])
            new, value = _searched_again(
                inputs.take(index), problem.take(index), known, proof.take(index), options
            )
            better = value > snr[index]
            beamformer = beamformer.index_copy(0, index[better], new[better])
            snr = snr.index_copy(0, index[better], value[better])
            reached = Reached(snr.sqrt() / problem.scale, received)
        relaxed = bound

        # Branching, where errors leave the relaxation itself too far above.
        if options.boxes > 1:
            index = loose(problem, snr, bound, tolerance)
            index = index[(group.error > 0).any(-1).any(-1)[index]]
            bound, boxes = branch_some(index, group, proof, reached, bound, options)

        # Beams at partial power, where that can be better and nothing is proven yet.
        index = loose(problem, snr, bound, tolerance)
        if len(index):
            new, value = _at_partial_power(
                inputs.take(index),
                problem.take(index),
                beamformer[index],
                proof.take(index),
                bound[index],
                options,
            )
            better = value > snr[index]
            beamformer = beamformer.index_copy(0, index[better], new[better])
            snr = snr.index_copy(0, index[better], value[better])
    return beamformer, in_given_units(inputs, problem, snr, relaxed, bound, proof, boxes)


def branch_some(
    index: Tensor,
    group: Group,
    proof: BeamDual,
    reached: Reached,
    bound: Tensor,
    options: MulticastOptions,
) -> tuple[Tensor, Tensor]:
    """Return bounds (B,), lowered by branching in some problems, and how many boxes it examined.

    Parameters
    ----------
    index
        (m,) the problems to branch in.
    group, proof, reached
        All problems, their dual points, and what their beams reach.
    bound
        (B,) on u.
    options
        With a tolerance.
    """
    boxes = torch.ones(len(bound), dtype=torch.int64, device=bound.device)
    if not len(index) or options.tolerance is None:
        return bound, boxes
    branched, examined = branch(
        group.take(index),
        proof.take(index),
        reached.take(index),
        bound[index],
        options.tolerance / 2,  # on u, half of what it is on u^2
        options.boxes,
    )
    bound = bound.index_copy(0, index, torch.minimum(bound[index], branched))
    return bound, boxes.index_copy(0, index, examined)


def loose(problem: ScaledGroups, snr: Tensor, bound: Tensor, tolerance: float) -> Tensor:
    """Return the problems (m,) whose bound on u is further above their beams than `tolerance`.

    Problems where one user alone would have no more than the rounding of norm and error are left
    out.

    Parameters
    ----------
    problem
        The problems.
    snr
        (B,) what their beams reach, in the caller's units.
    bound
        (B,) on u, in the units of the problem.
    tolerance
        Relative.
    """
    limit = torch.minimum(bound, problem.single_user / problem.scale)
    above = limit > (1 + tolerance) * (snr.sqrt() / problem.scale)
    return (above & (problem.single_user > HOPELESS * problem.scale)).nonzero()[:, 0]


def _searched_again(
    inputs: Inputs,
    problem: ScaledGroups,
    known: Carried,
    proof: BeamDual,
    options: MulticastOptions,
) -> tuple[Tensor, Tensor]:
    """Return beams (B, N, A) from starts that the relaxation gives, and their SNR (B,)."""
    starts = AGAIN * options.starts
    direction, gain = search_again(problem.group, known, proof, starts, options.dtype, options.seed)
    beamformer = _beams(problem, direction, gain) * inputs.power.sqrt()[..., None]
    return beamformer, worst_case_snr(inputs.channel, inputs.error, beamformer, inputs.users)


def _at_partial_power(
    inputs: Inputs,
    problem: ScaledGroups,
    beamformer: Tensor,
    proof: BeamDual,
    bound: Tensor,
    options: MulticastOptions,
) -> tuple[Tensor, Tensor]:
    """Return beams (B, N, A), better where second-order cone steps find some, and SNR (B,)."""
    amplitude = inputs.power.sqrt()[..., None]
    unit = (beamformer / torch.where(amplitude > 0, amplitude, 1.0)).cpu().numpy()
    channel, error = problem.channel.cpu().numpy(), problem.group.error.cpu().numpy()
    everyone = inputs.users.cpu().numpy()
    open_ = [b for b, users in enumerate(everyone) if crowded(channel[b, users])]
    if open_:
        index = torch.tensor(open_, device=beamformer.device)
        group = problem.group.take(index)
        phases = phases_at_partial_power(group, options.starts, options.dtype, options.seed)
        matrices = coupling(group, proof.slope[index], proof.price[index])
        for b, phase, matrix in zip(
            open_, phases.cpu().numpy(), matrices.cpu().numpy(), strict=True
        ):
            users = everyone[b]
            new = better_at_partial_power(
                channel[b, users],
                error[b, users],
                unit[b],
                phase[:, users],
                matrix[np.ix_(users, users)],
                float(bound[b]),
                DRAWN * options.starts,
                options.seed,
            )
            unit[b] = unit[b] if new is None else new
    found = torch.from_numpy(unit).to(beamformer.device) * amplitude
    return found, worst_case_snr(inputs.channel, inputs.error, found, inputs.users)


def in_given_units(
    inputs: Inputs,
    problem: ScaledGroups,
    snr: Tensor,
    relaxed: Tensor,
    bound: Tensor,
    proof: BeamDual,
    boxes: Tensor,
) -> Certificate:
    """Bring bounds and proofs back to the caller's units, with room for the roundings of that.

    Parameters
    ----------
    inputs, problem
        The problems, as given and scaled.
    snr
        (B,) what their beams reach, in the caller's units.
    relaxed, bound
        (B,) on u by the dual point, and by any means.
    proof, boxes
        The dual points, and how many boxes branching examined.
    """
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
    # Without errors, more power at an EN never lowers an amplitude whose phases agree.
    if not bool((problem.group.error > 0).any()):
        return unit
    choices = (unit * norm, unit * (norm > 0.5), unit)
    values = [worst_case_snr(problem.channel, problem.group.error, w, users) for w in choices]
    row = torch.arange(len(unit), device=unit.device)
    return torch.stack(choices, 1)[row, torch.stack(values, 1).argmax(1)]
