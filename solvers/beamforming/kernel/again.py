"""Bounds of beams that were kept: proven again, from dual points that were kept with them.

Any guess of a dual point becomes feasible by scaling (`certificate.py`), so nothing that was kept
is believed. A bad guess proves a loose bound and never a wrong one.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from numpy.typing import ArrayLike

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray
from finecast.solvers.beamforming.kernel.certificate import BeamDual, Box, Certificate, closed
from finecast.solvers.beamforming.kernel.gram import scaled
from finecast.solvers.beamforming.kernel.inputs import checked_inputs
from finecast.solvers.beamforming.kernel.interior_point import Reached
from finecast.solvers.beamforming.kernel.multicast import (
    MulticastOptions,
    branch_some,
    in_given_units,
    loose,
    worst_case_snr,
)


def certify_again(
    channel: ArrayLike,
    error: ArrayLike,
    power: ArrayLike,
    options: MulticastOptions,
    *,
    node_mask: BoolArray,
    user_mask: BoolArray,
    beamformer: ComplexArray,
    weight: FloatArray,
    slope: FloatArray,
    price: FloatArray,
) -> Certificate:
    """Return certified bounds, from beams and guesses of dual points.

    The dual points of `multicast.certify` prove its bounds again, up to rounding. What branching
    has proven is found anew.

    Parameters
    ----------
    channel, error, power, options, node_mask, user_mask
        As in `multicast.solve_multicast`.
    beamformer
        (B, N, A) finite, within the powers.
    weight, slope, price
        (B, K), (B, K) and (B, N), as in `Certificate`; whatever numbers.

    Raises
    ------
    ValueError
        Naming the argument that is misshaped, not finite or out of range.

    Examples
    --------
    One EN and one user of gain 3: one scaling makes a good guess and a wrong one feasible.

    >>> channel, everyone = np.array([[[[3.0]]]]), np.ones((1, 1), dtype=bool)
    >>> def again(slope):
    ...     return certify_again(
    ...         channel, np.zeros((1, 1, 1)), [1.0], MulticastOptions(), node_mask=everyone,
    ...         user_mask=everyone, beamformer=np.ones((1, 1, 1)) + 0j, weight=np.ones((1, 1)),
    ...         slope=np.array([[slope]]), price=np.array([[1.5]]),
    ...     ).relaxation.item()
    >>> round(again(1 / 6), 6), round(again(100.0), 6)
    (9.0, 9.0)
    """
    inputs = checked_inputs(channel, error, power, node_mask, user_mask, options.device)
    problem = scaled(inputs.channel, inputs.error, inputs.power, inputs.nodes, inputs.users)
    beams = torch.from_numpy(np.array(beamformer)).to(inputs.channel)
    snr = worst_case_snr(inputs.channel, inputs.error, beams, inputs.users)
    group = problem.group
    if not bool((problem.faithful > 0).all()):
        group = group.only(problem.faithful)

    # The dual points in the units of the scaled problems.
    scale = problem.scale[:, None]
    powered = (inputs.power > 0) & inputs.nodes
    kept = [torch.from_numpy(np.array(x)).to(inputs.error) for x in (weight, slope, price)]
    guess = BeamDual(
        kept[0], kept[1] * scale, torch.where(powered, kept[2] * inputs.power, 0.0) / scale
    )
    bound, proof = closed(group, guess, Box.whole(group))
    relaxed = bound

    # Branching, where errors leave the relaxation too far above.
    boxes = torch.ones(len(snr), dtype=torch.int64, device=snr.device)
    if options.tolerance is not None and options.boxes > 1:
        index = loose(problem, snr, bound, options.tolerance / 2)
        index = index[(group.error > 0).any(-1).any(-1)[index]]
        index = index[bound[index].isfinite()]
        flat = inputs.channel.conj().flatten(2) @ beams.flatten(1)[..., None]
        reached = Reached(snr.sqrt() / problem.scale, flat[..., 0].abs() / scale)
        bound, boxes = branch_some(index, group, proof, reached, bound, options)
    found = in_given_units(inputs, problem, snr, relaxed, bound, proof, boxes)
    return Certificate(*(getattr(found, field.name).cpu() for field in fields(Certificate)))
