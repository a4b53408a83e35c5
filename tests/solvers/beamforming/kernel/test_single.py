"""One problem at a time: the same bounds as the batch, proven optima, and what is left to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_channels import rayleigh, relative, snr_of, spread

from finecast.solvers.beamforming.kernel.certificate import Box, closed, guess_from_beams
from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.beamforming.kernel.multicast import (
    MulticastOptions,
    solve_and_certify,
    solve_multicast,
)
from finecast.solvers.beamforming.kernel.single import Few, solve_few
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
        expected, point = closed(group, guess, Box.whole(group))
        found = free_bound(gram, error, 2, Beam(0.0, direction, gain))
        np.testing.assert_allclose(found.bound, expected[0].item(), rtol=4e-15)
        for name in ("weight", "slope", "price"):
            np.testing.assert_allclose(getattr(found, name), getattr(point, name)[0], rtol=1e-11)


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


def test_dual_points_prove_the_bounds_in_the_given_units() -> None:
    """Their formula (`Certificate`) gives the bound, and their condition holds, masks included."""
    rng = np.random.default_rng(5)
    g = spread(rng, 3, 5, 3, 2, 20.0) * 1e3
    error, power = relative(g, 0.1), np.array([0.5, 2.0, 7.0])
    nodes = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0]], dtype=bool)
    users = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [1, 1, 0, 1, 1]], dtype=bool)
    few = solve_few(g, error, power, 4, 0, nodes, users)
    batch, _ = solve_and_certify(
        g, error, power, MulticastOptions(), node_mask=nodes, user_mask=users
    )
    np.testing.assert_allclose(few.snr, batch.snr, rtol=1e-6)
    for b in range(3):
        k, n = np.flatnonzero(users[b]), np.flatnonzero(nodes[b])
        weight, slope, price = few.weight[b, k], few.slope[b, k], few.price[b, n]
        assert not few.weight[b, ~users[b]].any()
        assert np.isinf(few.price[b, ~nodes[b]]).all()
        assert not few.beamformer[b, ~nodes[b]].any()
        loss = np.sqrt(power[n]) * (weight @ error[b][np.ix_(k, n)])
        value = (weight**2 / (4 * slope)).sum() + np.maximum(price * power[n] - loss, 0).sum()
        np.testing.assert_allclose(value**2, few.bound[b], rtol=1e-9)
        flat = g[b][np.ix_(k, n)].reshape(len(k), -1)
        excess = (slope[:, None, None] * flat[:, :, None] * flat[:, None].conj()).sum(0)
        excess -= np.diag(np.repeat(price, 2))
        assert np.linalg.eigvalsh(excess).max() <= 1e-9 * price.max()


def test_what_is_not_tight_is_left_over() -> None:
    """A bound further above the beams than the tolerance, or none at all, is for the batch."""
    few = Few.room((4, 1, 1, 1))
    few.snr[:] = [1.0, 1.0, 0.0, 0.0]
    few.bound[:] = [1.0005, 1.002, 0.0, np.inf]
    assert few.loose(1e-3).tolist() == [1, 3]
    assert few.loose(None).tolist() == [3]


def test_batches_of_few_are_solved_like_singles() -> None:
    """Three problems at once give bit for bit what each gives alone, judged by the closed form."""
    g = rayleigh(np.random.default_rng(4), 3, 4, 2, 2)
    error = relative(g, 0.1)
    whole = solve_multicast(g, error, np.ones(2))
    for i in range(3):
        one = solve_multicast(g[i : i + 1], error[i : i + 1], np.ones(2))
        np.testing.assert_array_equal(one.beamformer[0], whole.beamformer[i])
    np.testing.assert_allclose(whole.snr, snr_of(g, error, whole.beamformer), rtol=1e-10)
