"""The interior-point method: derivatives against finite differences, wide gains, stopping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from kernel_channels import relative, spread

from finecast.solvers.beamforming.kernel.certificate import BeamDual, Box
from finecast.solvers.beamforming.kernel.gram import Group, scaled
from finecast.solvers.beamforming.kernel.interior_point import (
    Reached,
    _barrier,
    _interior,
    _newton,
    refine,
)


def group_of(seed: int, batch: int, users: int, nodes: int, antennas: int, share: float) -> Group:
    """Scaled groups of spread channels."""
    channel = spread(np.random.default_rng(seed), batch, users, nodes, antennas)
    ones = torch.ones(batch, nodes, dtype=torch.float64)
    return scaled(
        torch.as_tensor(channel),
        torch.as_tensor(relative(channel, share)),
        ones,
        ones > 0,
        torch.ones(batch, users) > 0,
    ).group


def some_guess(group: Group) -> BeamDual:
    """A poor guess: equal weights, unit slopes and prices."""
    batch, users, nodes = group.error.shape
    weight = torch.full((batch, users), 1 / users, dtype=torch.float64)
    return BeamDual(weight, torch.ones_like(weight), torch.ones(batch, nodes, dtype=torch.float64))


def nothing_reached(group: Group) -> Reached:
    """Beams of which nothing is known but that every user hears an amplitude of one."""
    users = torch.ones_like(group.present)
    return Reached(torch.zeros_like(users[:, 0]), users)


def test_newton_step_solves_the_newton_equations() -> None:
    """At the centre found by Newton steps at fixed mu, the barrier function, differentiated
    numerically, is stationary along the simplex in lambda and in every alpha and D.
    """
    group = group_of(0, 3, 4, 2, 3, 0.2)
    box = Box(torch.tensor([[0.0, 0.2]] * 3).double(), torch.tensor([[1.0, 0.7]] * 3).double())
    point, mu = _interior(group, some_guess(group), nothing_reached(group), box)
    mu = torch.full_like(mu, 0.01)
    for _ in range(100):
        point, decrement = _newton(group, point, mu, box)
    assert (decrement < 1e-12).all()

    def value(direction: BeamDual, step: float) -> torch.Tensor:
        moved = BeamDual(
            point.weight + step * direction.weight,
            point.slope * (1 + step * direction.slope),
            point.price * (1 + step * direction.price),
        )
        return _barrier(group, moved, mu, box)[0]

    rng = np.random.default_rng(1)
    for _ in range(5):
        along = torch.as_tensor(rng.standard_normal((3, 4)))
        direction = BeamDual(
            0.1 * (along - along.mean(-1, keepdim=True)) * point.weight.min(),
            torch.as_tensor(rng.standard_normal((3, 4))),
            torch.as_tensor(rng.standard_normal((3, 2))),
        )
        slope = (value(direction, 1e-5) - value(direction, -1e-5)) / 2e-5
        assert (slope.abs() < 1e-5).all()


def test_same_optimum_from_any_guess() -> None:
    """A poor guess ends within the tolerance of where a good one ends, gains spread or not."""
    for share in (0.0, 0.3):
        group = group_of(2, 8, 6, 3, 2, share)
        box, reached = Box.whole(group), nothing_reached(group)
        louder = replace(reached, received=3 * reached.received)
        first, proof = refine(group, some_guess(group), reached, box, 1e-6, iterations=150)
        second, _ = refine(group, proof, reached, box, 1e-4, iterations=150)
        poor, _ = refine(group, some_guess(group), louder, box, 1e-4, iterations=150)
        np.testing.assert_allclose(second, first, rtol=1e-4)
        np.testing.assert_allclose(poor, first, rtol=1e-4)


def test_finished_problems_leave_and_the_batch_does_not_matter() -> None:
    """A problem's bound is the same alone and among others, whatever leaves the batch when."""
    group = group_of(3, 5, 4, 2, 2, 0.1)
    box, reached, guess = Box.whole(group), nothing_reached(group), some_guess(group)
    together, _ = refine(group, guess, reached, box, 1e-3)
    for i in range(5):
        index = torch.tensor([i])
        alone, _ = refine(
            group.take(index),
            guess.take(index),
            reached.take(index),
            box.take(index),
            1e-3,
        )
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-6)
