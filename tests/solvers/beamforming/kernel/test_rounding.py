"""Allowances for rounding: every number that counts as proven holds in exact arithmetic."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from kernel_channels import rayleigh, relative, spread

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.solvers.beamforming.kernel import certificate
from finecast.solvers.beamforming.kernel.certificate import (
    BeamDual,
    Box,
    closed,
    coupling,
    guess_from_beams,
    largest_eigenvalue,
    proven_eigenvalue,
    rounding,
)
from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.beamforming.kernel.multicast import MulticastOptions, solve_multicast
from finecast.solvers.beamforming.kernel.small import Beam, free_bound

DIGITS = 50


def exact_top(matrix: mpmath.matrix) -> mpmath.mpf:
    """The largest eigenvalue of a Hermitian matrix to `DIGITS` digits."""
    return max(mpmath.re(x) for x in mpmath.eighe(matrix, eigvals_only=True))


def exact_coupling(channel: ComplexArray, slope: FloatArray, price: FloatArray) -> mpmath.matrix:
    """T[k,l] = sqrt(alpha_k alpha_l) sum_n g_kn^H g_ln / D_n, from channels (K, N, A)."""
    users, nodes, antennas = channel.shape
    root = [mpmath.sqrt(mpmath.mpf(float(x))) for x in slope]
    matrix = mpmath.zeros(users, users)
    for k in range(users):
        for m in range(users):
            for n in range(nodes):
                for a in range(antennas):
                    g, h = (mpmath.mpc(complex(channel[i, n, a])) for i in (k, m))
                    matrix[k, m] += mpmath.conj(g) * h / mpmath.mpf(float(price[n]))
            matrix[k, m] *= root[k] * root[m]
    return matrix


def group_of(channel: ComplexArray, error: FloatArray | None = None) -> Group:
    """The group of channels (K, N, A) as they are."""
    users, nodes, antennas = channel.shape
    gram = np.einsum("kna,lna->nkl", channel.conj(), channel)
    error = np.zeros((users, nodes)) if error is None else error
    present = torch.ones(1, users, dtype=torch.float64)
    return Group(torch.tensor(gram)[None], torch.tensor(error)[None], present, antennas)


def near_singular(rng: np.random.Generator, users: int, kind: str) -> ComplexArray:
    """Channels (K, 2, 2): drawn freely, all but equal, or with gains over 120 dB."""
    channel = rayleigh(rng, 1, users, 2, 2, 1.0)[0]
    if kind == "twins":
        channel = channel[:1] * (1 + 1e-8 * rng.standard_normal((users, 1, 1)))
    elif kind == "graded":
        channel *= 10.0 ** -np.linspace(0, 6, users)[:, None, None]
    return channel


@pytest.mark.parametrize("kind", ["free", "twins", "graded"])
def test_eigenvalue_is_proven_for_the_exact_matrix(kind: str) -> None:
    """Above the eigenvalue of the matrix of the channels themselves in 50 digits, and next to it.

    LAPACK's eigenvalue of the computed matrix is below it about every other time.
    """
    rng = np.random.default_rng(0)
    below = 0
    with mpmath.workdps(DIGITS):
        for _ in range(12):
            channel = near_singular(rng, 4, kind)
            slope, price = rng.uniform(0.1, 1, 4), rng.uniform(0.1, 1, 2)
            group = group_of(channel)
            matrix = coupling(group, torch.tensor(slope)[None], torch.tensor(price)[None])
            trace = torch.diagonal(matrix, dim1=-2, dim2=-1).real.sum(-1)
            proven = proven_eigenvalue(matrix, trace, rounding(group)).item()
            exact = exact_top(exact_coupling(channel, slope, price))
            assert exact <= proven <= exact * (1 + mpmath.mpf("1e-11"))
            below += bool(largest_eigenvalue(matrix).item() < exact)
    assert below > 0


def test_eigenvalue_proof_covers_the_factorisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The factorisation may run to completion below the eigenvalue, by rounding alone.

    The least number that it accepts is put in place of the eigenvalue routine's. With gamma 0 the
    computed matrix is the exact one, and only the allowance of the proof is left.
    """
    rng, identity = np.random.default_rng(1), torch.eye(2, dtype=torch.complex128)
    deceived = 0
    with mpmath.workdps(DIGITS):
        for kind in ("free", "twins", "graded") * 20:
            gram = group_of(near_singular(rng, 2, kind)).gram.sum(1)
            gram = (gram + gram.mH) / 2
            trace = torch.diagonal(gram, dim1=-2, dim2=-1).real.sum(-1)
            top = torch.linalg.eigvalsh(gram)[:, -1]
            for ulps in range(-3, 20):
                least = top * (1 + ulps * 2.0**-52)
                if bool(torch.linalg.cholesky_ex(least * identity - gram)[1] == 0):
                    break
            monkeypatch.setattr(certificate, "largest_eigenvalue", lambda _, least=least: least)
            exact = exact_top(mpmath.matrix(gram[0].tolist()))
            assert exact <= proven_eigenvalue(gram, trace, 0.0).item()
            deceived += bool(least.item() < exact)
    assert deceived > 0


@pytest.mark.parametrize("missing", [0.0, 0.9, 1.1, 10.0, 1e6])
def test_eigenvalue_routine_is_not_relied_on(
    missing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A routine that returns too little, by `missing` times gamma tr(T), spoils no bound.

    The exact matrix is the worst one that rounding allows: above the computed one by gamma tr(T) in
    the direction of its eigenvector.
    """
    rng, gamma = np.random.default_rng(2), 1e-12
    channel = rayleigh(rng, 1, 3, 2, 2, 1.0)[0]
    matrix = group_of(channel).gram.sum(1)
    trace = torch.diagonal(matrix, dim1=-2, dim2=-1).real.sum(-1)
    top = torch.linalg.eigvalsh(matrix)[:, -1]

    monkeypatch.setattr(certificate, "largest_eigenvalue", lambda _: top - missing * gamma * trace)
    proven = proven_eigenvalue(matrix, trace, gamma)
    assert (proven >= top + gamma * trace).all()
    # What the factorisation does not prove is replaced by the trace; else the bound is close.
    assert (proven <= (top + 3 * gamma * trace if missing < 1 else trace * (1 + 2 * gamma))).all()


def test_without_convergence_the_trace_is_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eigenvalue routine that gives up leaves the trace, matrix by matrix."""

    def give_up(matrix: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no convergence")

    matrix = torch.diag_embed(torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 4.0]])) + 0j
    monkeypatch.setattr(torch.linalg, "eigvalsh", give_up)
    assert largest_eigenvalue(matrix).tolist() == [3.0, 8.0, 11.0]


def test_rank_one_trace_is_widened_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one user the trace is the eigenvalue: without a proof it needs the allowance as well."""
    matrix, gamma = torch.tensor([[[4.0 + 0j]]], dtype=torch.complex128), 1e-12
    trace = matrix[:, 0, 0].real
    monkeypatch.setattr(certificate, "largest_eigenvalue", lambda _: torch.zeros(1).double())
    assert proven_eigenvalue(matrix, trace, gamma) >= 4 * (1 + gamma)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_bounds_of_one_user_hold_exactly(share: float) -> None:
    """K = 1: no bound is below u* = sum_n (norm(g_n) - eps_n) in 50 digits, nor far above it.

    The free certificates of the batch and of the small search are tight there, so that any rounding
    they did not allow for shows in every other draw.
    """
    rng = np.random.default_rng(3)
    with mpmath.workdps(DIGITS):
        for _ in range(40):
            channel = spread(rng, 1, 1, 2, 3, 20.0)[0]
            channel /= np.linalg.norm(channel, axis=-1).sum()
            error = relative(channel, share)
            exact = sum(
                mpmath.norm([mpmath.mpc(complex(x)) for x in channel[0, n]])
                - mpmath.mpf(float(error[0, n]))
                for n in range(2)
            )
            group = group_of(channel, error)
            gain = 1 / np.linalg.norm(channel[0], axis=-1)
            one = torch.ones(1, 1, dtype=torch.complex128)
            guess, _ = guess_from_beams(group, one, torch.tensor(gain)[None])
            batched = closed(group, guess, Box.whole(group))[0].item()
            small = free_bound(
                group.gram[0].numpy(), error, 3, Beam(0.0, np.ones(1) + 0j, gain)
            ).bound
            for bound in (batched, small):
                assert exact <= bound <= exact * (1 + mpmath.mpf("1e-12"))


@pytest.mark.parametrize(("share", "above"), [(0.3, 1e-8), (0.9999, 1e-8), (1 - 1e-11, 1e-2)])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_single_user_bound_holds_exactly(
    tolerance: float | None, batch: int, share: float, above: float
) -> None:
    """Problems of one user from end to end: the SNR bound is not below the exact optimum.

    With errors next to the channel's norm, norm - eps has few digits left: five at 1 - 1e-11.
    """
    options = MulticastOptions(tolerance=tolerance)
    rng = np.random.default_rng(4)
    power = np.array([0.3, 1.7])
    with mpmath.workdps(DIGITS):
        roots = [mpmath.sqrt(mpmath.mpf(float(p))) for p in power]
        for _ in range(12):
            channel = spread(rng, batch, 1, 2, 3)
            error = relative(channel, share)
            answer = solve_multicast(channel, error, power, options)
            for b in range(batch):
                exact = mpmath.mpf(0)
                for n in range(2):
                    norm = mpmath.norm([mpmath.mpc(complex(x)) for x in channel[b, 0, n]])
                    exact += roots[n] * (norm - mpmath.mpf(float(error[b, 0, n])))
                assert exact**2 <= answer.bound[b] <= exact**2 * (1 + mpmath.mpf(above))


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_sum_of_the_bound_is_widened(share: float) -> None:
    """`closed` adds gamma times the moduli: its number is above formula (2) at its own point.

    And not far above: the point returned is that of the best scale.
    """
    rng = np.random.default_rng(5)
    with mpmath.workdps(DIGITS):
        for _ in range(20):
            channel = rayleigh(rng, 1, 3, 2, 2, 1.0)[0]
            error = relative(channel, share)
            group = group_of(channel, error)
            guess = BeamDual(*(torch.tensor(rng.uniform(0.2, 1, (1, m))) for m in (3, 3, 2)))
            bound, point = closed(group, guess, Box.whole(group))
            weight, slope, price = (
                [mpmath.mpf(x) for x in part[0].tolist()]
                for part in (point.weight, point.slope, point.price)
            )
            exact = sum(w**2 / (4 * s) for w, s in zip(weight, slope, strict=True))
            for n in range(2):
                loss = sum(weight[k] * mpmath.mpf(float(error[k, n])) for k in range(3))
                exact += max(mpmath.mpf(0), price[n] - loss)
            assert exact <= bound.item() * sum(weight) <= exact * (1 + mpmath.mpf("1e-12"))
            assert exact_top(exact_coupling(channel, point.slope[0], point.price[0])) <= 1
