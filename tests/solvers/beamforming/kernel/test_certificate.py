"""Certified bounds: exact arithmetic, the SDP of the same relaxation, branching."""

from __future__ import annotations

import cvxpy as cp
import mpmath
import numpy as np
import pytest
import torch
from kernel_channels import rayleigh, relative, spread

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.solvers.beamforming.kernel.certificate import (
    BeamDual,
    Box,
    Certificate,
    closed,
    dual_value,
)
from finecast.solvers.beamforming.kernel.gram import Group, scaled
from finecast.solvers.beamforming.kernel.multicast import MulticastOptions, certify


def exact_bound(
    channel: ComplexArray, error: FloatArray, power: FloatArray, proof: Certificate, b: int
) -> mpmath.mpf:
    """The bound on u that dual point `b` proves, recomputed at 50 digits from its definition.

    The dual point is taken as returned; condition (1) is enforced by the exact largest eigenvalue
    of the |Q|A x |Q|A matrix itself, not of the Gram form the code uses.
    """
    users, nodes, antennas = channel.shape[1:]
    with mpmath.workdps(50):
        weight = [mpmath.mpf(float(x)) for x in proof.weight[b]]
        slope = [mpmath.mpf(float(x)) for x in proof.slope[b]]
        price = [mpmath.mpf(float(x)) for x in proof.price[b]]
        total = sum(weight)
        active = [n for n in range(nodes) if power[n] > 0]
        size = len(active) * antennas
        matrix = mpmath.zeros(size, size)
        for k in range(users):
            vector = [
                mpmath.mpmathify(complex(channel[b, k, n, a])) / mpmath.sqrt(price[n])
                for n in active
                for a in range(antennas)
            ]
            for i in range(size):
                for j in range(size):
                    matrix[i, j] += slope[k] * vector[i] * mpmath.conj(vector[j])
        top = max(mpmath.re(x) for x in mpmath.eighe(matrix, eigvals_only=True))
        assert top <= 1  # condition (1), exactly
        value = mpmath.mpf(0)
        for k in range(users):
            if weight[k] > 0:
                value += weight[k] ** 2 / (4 * slope[k])
        for n in active:
            limit = mpmath.mpf(float(power[n]))
            loss = sum(weight[k] * mpmath.mpf(float(error[b, k, n])) for k in range(users))
            value += max(mpmath.mpf(0), price[n] * limit - mpmath.sqrt(limit) * loss)
        return value / total


@pytest.mark.parametrize("tolerance", [None, 1e-3])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_bound_holds_in_exact_arithmetic(tolerance: float | None, share: float) -> None:
    """The float bound is not below what its dual point proves at 50 digits, and close to it."""
    rng = np.random.default_rng(0)
    for users, nodes, antennas in ((1, 2, 2), (3, 2, 2), (5, 3, 1), (6, 2, 2)):
        channel = spread(rng, 4, users, nodes, antennas)
        error, power = relative(channel, share), rng.uniform(0.2, 3, nodes)
        power[-1] *= nodes < 3  # one EN without power
        proof = certify(channel, error, power, MulticastOptions(tolerance=tolerance))
        for b in range(4):
            exact = exact_bound(channel, error, power, proof, b)
            reported = mpmath.sqrt(mpmath.mpf(float(proof.relaxation[b])))
            assert reported >= exact
            assert reported <= exact * (1 + mpmath.mpf("1e-10"))


def test_dual_value_takes_the_worse_end_of_every_interval() -> None:
    """Formula (2) in loops: each EN counts with the larger of its two ends, low ones included.

    Where the price is below c_n / (l_n + h_n) the low end is the larger one: a bound without it
    would not hold for beams with little power at that EN.
    """
    rng = np.random.default_rng(6)
    channel = spread(rng, 30, 3, 2, 2)
    error = relative(channel, 0.3) / np.linalg.norm(channel, axis=-1).mean()
    group = Group(torch.zeros(30, 2, 3, 3) + 0j, torch.tensor(error), torch.ones(30, 3).double(), 2)
    low = rng.uniform(0, 0.5, (30, 2)) * (rng.random((30, 2)) < 0.5)
    high = low + rng.uniform(0, 0.5, (30, 2))
    weight, slope = rng.dirichlet(np.ones(3), 30), rng.exponential(size=(30, 3))
    weight[:10, 0] = 0
    price = rng.exponential(size=(30, 2)) * 0.3
    point = BeamDual(torch.tensor(weight), torch.tensor(slope), torch.tensor(price))
    value, moduli = dual_value(group, point, Box(torch.tensor(low), torch.tensor(high)))
    ends = set()
    for b in range(30):
        spread_part = sum(weight[b, k] ** 2 / (4 * slope[b, k]) for k in range(3))
        total, size = spread_part, spread_part
        for n in range(2):
            loss = sum(weight[b, k] * error[b, k, n] for k in range(3))
            at_low, at_high = (price[b, n] * q**2 - loss * q for q in (low[b, n], high[b, n]))
            ends.add(bool(at_low > at_high))
            total += max(at_low, at_high)
            size += price[b, n] * high[b, n] ** 2 + loss * high[b, n]
        assert value[b].item() == pytest.approx(total, rel=1e-12)
        assert moduli[b].item() == pytest.approx(size, rel=1e-12)
    assert ends == {False, True}


def test_any_guess_becomes_a_bound() -> None:
    """`closed` turns arbitrary non-negative guesses into bounds: none is below the optimum."""
    rng = np.random.default_rng(1)
    channel = spread(rng, 40, 4, 2, 2)
    error = relative(channel, 0.1)
    ones = torch.ones(40, 2, dtype=torch.float64)
    best = certify(channel, error, np.ones(2), MulticastOptions(starts=8, tolerance=1e-3))
    problem = scaled(
        torch.as_tensor(channel), torch.as_tensor(error), ones, ones > 0, torch.ones(40, 4) > 0
    )
    guess = BeamDual(
        torch.as_tensor(rng.exponential(size=(40, 4))),
        torch.as_tensor(rng.exponential(size=(40, 4)) ** 3),
        torch.as_tensor(rng.exponential(size=(40, 2)) ** 3),
    )
    bound, _ = closed(problem.group, guess, Box.whole(problem.group))
    assert ((bound * problem.scale) ** 2 >= best.snr).all()


def test_padding_does_not_count() -> None:
    """Absent users, whatever the guess says of them, leave bound and point as without them."""
    rng = np.random.default_rng(7)
    channel = spread(rng, 6, 5, 2, 2)
    error = relative(channel, 0.1)
    there = torch.tensor([True, False, True, True, False])
    ones = torch.ones(6, 2, dtype=torch.float64)
    whole = scaled(
        torch.tensor(channel), torch.tensor(error), ones, ones > 0, there.expand(6, 5)
    ).group
    part = Group(
        whole.gram[:, :, there][..., there], whole.error[:, there], whole.present[:, there], 2
    )
    guess = BeamDual(*(torch.tensor(rng.exponential(size=(6, m))) for m in (5, 5, 2)))
    fewer = BeamDual(guess.weight[:, there], guess.slope[:, there], guess.price)
    bound, point = closed(whole, guess, Box.whole(whole))
    expected, _ = closed(part, fewer, Box.whole(part))
    np.testing.assert_allclose(bound, expected, rtol=1e-10)
    assert (point.weight[:, ~there] == 0).all()
    assert (point.slope[:, ~there] == 0).all()


@pytest.mark.parametrize("part", ["weight", "slope", "price"])
def test_a_guess_that_is_no_number_proves_nothing(part: str) -> None:
    """Nor does a guess without any weight: its bound is infinite, the others keep theirs."""
    ones = torch.ones(3, 2, dtype=torch.float64)
    group = scaled(
        torch.tensor(rayleigh(np.random.default_rng(8), 3, 2, 2, 2)),
        torch.zeros(3, 2, 2, dtype=torch.float64),
        ones,
        ones > 0,
        ones > 0,
    ).group
    guess = {"weight": ones.clone(), "slope": ones.clone(), "price": ones.clone()}
    guess[part][0] = torch.nan
    guess["weight"][1] = 0
    bound, _ = closed(group, BeamDual(**guess), Box.whole(group))
    assert bound[:2].tolist() == [np.inf, np.inf]
    assert bound[2].isfinite()


def test_negative_numbers_of_a_guess_count_as_zero() -> None:
    """A negative lambda would take a user's amplitude away: no bound on the weakest user's."""
    ones = torch.ones(4, 2, dtype=torch.float64)
    channel = torch.tensor(rayleigh(np.random.default_rng(10), 4, 3, 2, 2))
    users = torch.ones(4, 3, dtype=torch.float64)
    group = scaled(channel, 0 * channel[..., 0].real, ones, ones > 0, users > 0).group
    weight = users * torch.tensor([1.0, 2.0, -0.5])
    bound, point = closed(group, BeamDual(weight, users, ones), Box.whole(group))
    expected, _ = closed(group, BeamDual(weight.clamp(min=0), users, ones), Box.whole(group))
    assert torch.equal(bound, expected)
    assert (point.weight >= 0).all()


def test_points_are_taken_put_and_chosen_by_problem() -> None:
    """take, put, where and joined move all arrays of a problem together."""
    rng = np.random.default_rng(9)
    old, new = (BeamDual(*(torch.tensor(rng.random((3, m))) for m in (4, 4, 2))) for _ in range(2))
    last = torch.tensor([2])
    put = old.put(last, new.take(last))
    chosen = old.where(torch.tensor([True, True, False]), new)
    both = old.joined(new)
    for name in ("weight", "slope", "price"):
        before, after = getattr(old, name), getattr(new, name)
        expected = torch.cat([before[:2], after[2:]])
        assert torch.equal(getattr(put, name), expected)
        assert torch.equal(getattr(chosen, name), expected)
        assert torch.equal(getattr(both, name), torch.cat([before, after]))
    box = Box(old.weight, old.weight + new.weight)
    assert torch.equal(box.take(last).low, old.weight[2:])
    assert torch.equal(box.joined(box.take(last)).high[3:], box.high[2:])


def relaxation_by_sdp(channel: ComplexArray, error: FloatArray, power: FloatArray) -> float:
    """u of the relaxation of docs/formulation.md section 4.1 for one problem, by Clarabel."""
    users, nodes, antennas = channel.shape
    scale = np.linalg.norm(channel.reshape(users, -1), axis=1).min()
    size = nodes * antennas
    covariance, u = cp.Variable((size, size), hermitian=True), cp.Variable()
    blocks = [slice(n * antennas, (n + 1) * antennas) for n in range(nodes)]
    spent = [cp.real(cp.trace(covariance[block, block])) for block in blocks]
    constraints = [covariance >> 0] + [spent[n] <= power[n] for n in range(nodes)]
    for k in range(users):
        g = channel[k].reshape(-1) / scale
        received = cp.real(cp.trace(np.outer(g, g.conj()) @ covariance))
        loss = sum(error[k, n] / scale / np.sqrt(power[n]) * spent[n] for n in range(nodes))
        constraints.append(cp.sqrt(received) >= u + loss)
    problem = cp.Problem(cp.Maximize(u), constraints)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-7, tol_gap_rel=1e-7, tol_feas=1e-7)
    assert problem.status == "optimal"
    return float(u.value) * float(scale)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_bound_equals_the_sdp(share: float) -> None:
    """With a tolerance the bound is the relaxation's optimum to 1e-3, and never below it."""
    rng = np.random.default_rng(2)
    for users, nodes, antennas in ((3, 2, 2), (6, 2, 2), (5, 3, 2)):
        channel = rayleigh(rng, 3, users, nodes, antennas)
        error, power = relative(channel, share), rng.uniform(0.5, 2, nodes)
        proof = certify(channel, error, power, MulticastOptions(tolerance=5e-4))
        for b in range(3):
            sdp = relaxation_by_sdp(channel[b], error[b], power) ** 2
            assert sdp * (1 - 1e-5) <= proof.relaxation[b] <= sdp * (1 + 1e-3)


def test_branching_closes_the_chord() -> None:
    """One antenna, two users, large errors at the second EN: silence or full power at it is decided
    by branching, where the relaxation alone stays far above. The optimum comes from a grid over
    the two amplitudes and the phase between them.
    """
    rng = np.random.default_rng(3)
    channel = rayleigh(rng, 12, 2, 2, 1)
    error = relative(channel, 1.0) * np.array([0.1, 0.7])
    root = certify(channel, error, np.ones(2), MulticastOptions(tolerance=1e-3))
    branched = certify(channel, error, np.ones(2), MulticastOptions(tolerance=1e-3, boxes=200))
    amplitude = np.linspace(0, 1, 51)
    phase = np.exp(2j * np.pi * np.arange(180) / 180)
    one, two, turn = np.meshgrid(amplitude, amplitude, phase, indexing="ij")
    beams = np.stack([one, two * turn], -1)
    received = np.abs(np.einsum("bkn,xyzn->bkxyz", channel[..., 0].conj(), beams))
    lost = np.einsum("bkn,xyzn->bkxyz", error, np.abs(beams))
    grid = (np.maximum(received - lost, 0).min(1).max((1, 2, 3))) ** 2
    assert (branched.bound.numpy() >= grid).all()
    assert (branched.bound <= root.bound * (1 + 1e-12)).all()
    np.testing.assert_array_less(
        branched.bound.numpy(), np.maximum(grid, branched.snr.numpy()) * 1.02
    )
    assert (root.bound / branched.bound).max() > 1.05
    assert branched.boxes.max() > 1
    np.testing.assert_array_less(grid, branched.snr.numpy() * 1.02)


@pytest.mark.parametrize("share", [1.0, 1 - 2e-16, 1 - 1e-9])
def test_nothing_is_proven_where_only_rounding_is_left(share: float) -> None:
    """Errors of the channels' own norms leave what rounds: no box is examined for it. A billionth
    of the amplitude is no rounding, and is branched on. Bounds are tiny, and hold, in both cases.
    """
    channel = rayleigh(np.random.default_rng(6), 40, 3, 2, 2)
    error = relative(channel, share)
    found = certify(channel, error, np.ones(2), MulticastOptions(tolerance=1e-3, boxes=16))
    alone = np.maximum(np.linalg.norm(channel, axis=-1) - error, 0).sum(2).min(1)
    assert (found.bound >= found.snr).all()
    assert (found.bound.numpy() <= (alone + 1e-13 * np.abs(channel).sum((1, 2, 3))) ** 2).all()
    assert (found.boxes > 1).any() == (share == 1 - 1e-9)


def test_tolerance_tightens_and_free_is_valid() -> None:
    """free >= tolerance 1e-1 >= tolerance 1e-3 (up to the tolerance), all above what is reached."""
    channel = rayleigh(np.random.default_rng(4), 30, 6, 3, 2)
    error = relative(channel, 0.1)
    free, loose, tight = (
        certify(channel, error, np.ones(3), MulticastOptions(tolerance=t))
        for t in (None, 1e-1, 1e-3)
    )
    assert (free.bound >= loose.bound).all()
    assert (loose.bound >= tight.bound * (1 - 1e-12)).all()
    assert (tight.bound >= free.snr).all()
    assert (free.bound / tight.bound).mean() > 1.05
    assert loose.bound.max() > 0
    assert (loose.bound <= 1.11 * tight.bound).all()
