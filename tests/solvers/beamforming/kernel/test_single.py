"""One problem at a time: the same bounds as the batch, proven optima, and what is left to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_channels import rayleigh, relative, snr_of, spread

from finecast.solvers.beamforming.kernel.certificate import Box, closed, guess_from_beams
from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.beamforming.kernel.multicast import MulticastOptions, solve_multicast
from finecast.solvers.beamforming.kernel.single import solve_few
from finecast.solvers.beamforming.kernel.small import Beam, free_bound


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_free_bound_is_that_of_the_batch(share: float) -> None:
    """The NumPy certificate equals the batched one, which is checked in exact arithmetic.

    To the last digits, below the allowances for rounding: those have to be the same too.
    """
    rng = np.random.default_rng(1)
    for _ in range(20):
        g = spread(rng, 1, 5, 3, 2, 20.0)
        error = relative(g, share)[0] * (rng.random(3) < 0.6)
        gram = np.einsum("kna,lna->nkl", g[0].conj(), g[0])
        direction = rng.dirichlet(np.ones(5)) * np.exp(2j * np.pi * rng.random(5))
        gain = rng.random(3)
        group = Group(torch.tensor(gram)[None], torch.tensor(error)[None], torch.ones(1, 5), 2)
        group = Group(group.gram, group.error, group.present.double(), 2)
        guess, _ = guess_from_beams(group, torch.tensor(direction)[None], torch.tensor(gain)[None])
        expected, _ = closed(group, guess, Box.whole(group))
        found = free_bound(gram, error, 2, Beam(0.0, direction, gain))
        np.testing.assert_allclose(found, expected[0].item(), rtol=4e-15)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("users", [2, 3])
def test_tight_relaxations_are_closed(batch: int, users: int) -> None:
    """One node, up to three users, no errors: the relaxation has a rank-one optimum (Huang and
    Palomar, IEEE TSP 2010), so that a search that converges meets its own free bound.
    """
    g = rayleigh(np.random.default_rng(2), 8, users, 1, 4)
    error = np.zeros((8, users, 1))
    for at in range(0, 8, batch):
        part = slice(at, at + batch)
        answer = solve_multicast(g[part], error[part], [1.0], MulticastOptions(starts=8))
        np.testing.assert_allclose(answer.bound, answer.snr, rtol=1e-5)


def test_out_of_the_ordinary_is_left_to_the_batch() -> None:
    """Silent ENs, hopeless users, many problems, tensors and bad numbers are not solved here."""
    rng = np.random.default_rng(3)
    g = rayleigh(rng, 1, 3, 2, 2)
    error, power = relative(g, 0.1), np.ones(2)
    assert solve_few(g, error, power, 4, 0) is not None
    assert solve_few(torch.tensor(g), error, power, 4, 0) is None
    assert solve_few(g.repeat(4, 0), error.repeat(4, 0), power, 4, 0) is None
    assert solve_few(g, relative(g, 1.5), power, 4, 0) is None
    assert solve_few(g * 1e-200, error * 1e-200, power, 4, 0) is None
    assert solve_few(g, error, np.array([1.0, 0.0]), 4, 0) is None
    assert solve_few(g, error, np.array([1.0, np.nan]), 4, 0) is None
    assert solve_few(g * [[[[1]], [[1e8]], [[1]]]], 0 * error, power, 4, 0) is None


def test_batches_of_few_are_solved_like_singles() -> None:
    """Three problems at once give bit for bit what each gives alone, judged by the closed form."""
    g = rayleigh(np.random.default_rng(4), 3, 4, 2, 2)
    error = relative(g, 0.1)
    whole = solve_multicast(g, error, np.ones(2))
    for i in range(3):
        one = solve_multicast(g[i : i + 1], error[i : i + 1], np.ones(2))
        np.testing.assert_array_equal(one.beamformer[0], whole.beamformer[i])
    np.testing.assert_allclose(whole.snr, snr_of(g, error, whole.beamformer), rtol=1e-10)
