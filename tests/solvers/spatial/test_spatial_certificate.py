"""Rounding of the certificate: what float64 says stays on the safe side of exact arithmetic."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finecast.solvers.spatial.bounds import downlink
from finecast.solvers.spatial.certificate import (
    ModeDual,
    boxes,
    floors,
    largest_signed_eigenvalue_bound,
    most_over_prices,
    proven_limit,
    strongest,
    time_bound,
    user_bound,
)

DIGITS = 50


def exact(value):
    """Return the number that a float64 is, in many digits."""
    return mpmath.mpf(float(value))


def largest_eigenvalue(matrix):
    """Return the largest eigenvalue of the float64 matrix whose lower triangle this is."""
    size = len(matrix)
    lower = mpmath.matrix(size)
    for i in range(size):
        lower[i, i] = exact(matrix[i, i].real)
        for j in range(i):
            lower[i, j] = mpmath.mpc(complex(matrix[i, j]))
            lower[j, i] = mpmath.conj(lower[i, j])
    return max(mpmath.eighe(lower, eigvals_only=True))


def signed_case(rng, *, users=6, nodes=2, antennas=2, error=0.0):
    """Return a downlink with channels of 20 dB more or less, all users with their own message."""
    shape = (users, nodes, antennas)
    channel = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * 10 ** rng.uniform(
        0, 1, (users, nodes, 1)
    )
    radius = error * np.linalg.norm(channel, axis=2)
    power = rng.uniform(0.1, 2.0, nodes)
    return downlink(channel, radius, power, np.eye(users, dtype=bool), rng.lognormal(size=users))


def test_sums_over_many_users_are_padded():
    """One entry of 1 and 20 000 of 0.75 half units in the last place: added one by one to the 1,
    each of them is rounded away. The bound is above the sum in exact fractions nevertheless."""
    count = 20_000
    rows = np.full((count + 1, 1), 2.0**-27, dtype=complex)
    rows[0] = 1.0
    coefficient = np.full((1, count + 1), 1.5)
    coefficient[0, 0] = 1.0
    total = 1 + count * Fraction(3, 2) * Fraction(2) ** -54
    bound = largest_signed_eigenvalue_bound(
        rows, coefficient, np.zeros((1, 1)), np.ones((1, 1), dtype=bool)
    )
    assert total <= Fraction(bound) <= total * (1 + Fraction(1, 10**9))


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_limits_of_nearly_singular_matrices(size):
    """Negative definite but for one eigenvalue of 1e-12 or so: the eigenvalue that float64 finds
    errs by more than itself, and limit I minus the matrix is singular in all its digits."""
    rng = np.random.default_rng(size)
    for _ in range(40):
        rows = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
        basis, _ = np.linalg.qr(rows)
        values = -rng.uniform(0.1, 1.0, size)
        values[0] = 1e-12 * rng.random()
        matrix = (basis * values) @ basis.conj().T
        limit = proven_limit(matrix[None], 1e-30, size)
        with mpmath.workdps(DIGITS):
            top = largest_eigenvalue(matrix)
            assert top <= exact(limit)
            assert exact(limit) <= max(top, 0) + 1e-11


@pytest.mark.parametrize("shift", [-3.0, -1.0, -0.9, 0.0])
def test_eigenvalues_computed_are_not_believed(shift, monkeypatch):
    """Eigenvalues that come out too low by up to three pads, the limit is above those of the
    matrix and of all matrices within the pad: the Cholesky factorisation finds out."""
    honest = np.linalg.eigvalsh
    pad = 1e-3
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20, 4, 4))
    matrix = matrix + matrix.transpose(0, 2, 1)
    top = honest(matrix)[:, -1]
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda m: honest(m) + shift * pad)
    for m, value in zip(matrix, top, strict=True):
        limit = proven_limit(m[None], pad, 20.0)
        assert max(value, 0.0) + pad <= limit <= max(value, 0.0) + 10 * pad


@pytest.mark.parametrize("antennas", [1, 3, 8])
def test_cancelling_users_in_exact_arithmetic(antennas):
    """Users that hear and users that do not, on nearly the same channel: what is left is rounding,
    and the bound is above the eigenvalues of the exact matrices. With 8 antennas for 4 users the
    matrices are those of a QR factorisation."""
    rng = np.random.default_rng(antennas)
    for _ in range(20):
        heard = rng.normal(size=(2, antennas)) + 1j * rng.normal(size=(2, antennas))
        rows = np.vstack([heard, heard * (1 + 1e-14 * rng.normal(size=(2, 1)))])
        coefficient = np.array([[1.0, 2.0, -1.0, -2.0]])
        bound = largest_signed_eigenvalue_bound(
            rows, coefficient, np.zeros((1, antennas)), np.ones((1, antennas), dtype=bool)
        )
        with mpmath.workdps(DIGITS):
            matrix = mpmath.zeros(antennas)
            for row, factor in zip(rows, coefficient[0], strict=True):
                x = mpmath.matrix([mpmath.mpc(complex(a)) for a in row])
                matrix += exact(factor) * x * x.H
            top = max(mpmath.eighe(matrix, eigvals_only=True))
            assert max(top, 0) <= exact(bound) <= max(top, 0) + 1e-10


def test_no_eigenvalue_of_infinite_channels():
    """Beyond float64 there is no bound."""
    rows, sending = np.full((2, 1), 1e200), np.ones((1, 1), dtype=bool)
    with np.errstate(over="ignore"):
        bound = largest_signed_eigenvalue_bound(rows, np.ones((1, 2)), np.zeros((1, 1)), sending)
    assert bound == np.inf


def test_strongest_is_rounded_up():
    """(sum_n norm(x_kn))^2 in many digits is never above what float64 says."""
    rng = np.random.default_rng(1)
    channel = rng.normal(size=(300, 3, 2)) + 1j * rng.normal(size=(300, 3, 2))
    most = strongest(channel)
    with mpmath.workdps(DIGITS):
        for x, value in zip(channel, most, strict=True):
            total = mpmath.fsum(
                mpmath.sqrt(mpmath.fsum(exact(a.real) ** 2 + exact(a.imag) ** 2 for a in node))
                for node in x
            )
            assert total**2 <= exact(value) <= total**2 * (1 + exact(1e-13))


def test_strongest_of_the_nodes_that_serve():
    """Amplitudes 3, 4 and 5: nodes 0 and 2 alone give 8^2, all of them 12^2."""
    channel = np.array([[[3.0, 0.0], [0.0, 4.0j], [3.0, 4.0]]])
    assert strongest(channel) == pytest.approx([144.0])
    assert strongest(channel, np.array([[True, False, True]])) == pytest.approx([64.0])


def test_floors_are_rounded_up():
    """F and kappa in exact fractions are never above what float64 says."""
    case = signed_case(np.random.default_rng(2), users=200, nodes=3, error=0.1)
    ceiling, ratio = floors(case)
    for k in range(len(case.nats)):
        error = [Fraction(float(e)) ** 2 for e in case.error[k]]
        power = [
            sum(Fraction(float(a.real)) ** 2 + Fraction(float(a.imag)) ** 2 for a in node)
            for node in case.weakest[k]
        ]
        signal = sum(p / e for p, e in zip(power, error, strict=True))
        for true, value in ((sum(error), ceiling[k]), (signal, ratio[k])):
            assert true <= Fraction(float(value)) <= true * (1 + Fraction(1, 10**12))


def test_floors_where_nothing_is_known_or_nothing_comes():
    """No error at a node: its signal disturbs nobody, kappa is infinite. No channel: no signal."""
    quiet = signed_case(np.random.default_rng(3), users=2)
    assert [part.tolist() for part in floors(quiet)] == [[0.0, 0.0], [np.inf, np.inf]]
    deaf = replace(quiet, weakest=np.zeros_like(quiet.weakest))
    assert [part.tolist() for part in floors(deaf)] == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("cap", [0.1, np.log(2.0), 3.0, np.inf])
def test_one_user_in_exact_arithmetic(cap):
    """B_k / log(1 + T_k), and at a cap the streams that fit: never above, by 1e-11 at most below.

    T_k is that of `strongest`, which has its own test.
    """
    rng = np.random.default_rng(4)
    for _ in range(200):
        case = signed_case(rng, users=1)
        value = user_bound(case, cap)
        with mpmath.workdps(DIGITS):
            snr = exact(strongest(case.weakest)[0])
            nats = mpmath.log(1 + snr)
            if np.isfinite(cap):
                share, full = snr / (1 + snr), 1 - mpmath.exp(-exact(cap))
                streams = mpmath.floor(share / full)
                if streams > 0:
                    nats = min(
                        nats, streams * exact(cap) - mpmath.log(1 - (share - streams * full))
                    )
            longest = exact(case.nats[0]) / nats
            assert longest * (1 - exact(1e-11)) <= exact(value) <= longest


def test_one_user_hears_the_nodes_of_its_messages():
    """Amplitudes 3 and 4, but only the first node may send to the user: 2 / log(1 + 3^2)."""
    channel = np.array([[[3.0], [4.0]]])
    only, both = (
        user_bound(downlink(channel, np.zeros((1, 2)), [1.0, 1.0], [[True]], [2.0], [nodes]))
        for nodes in ([True, False], [True, True])
    )
    assert only == pytest.approx(2 / np.log(10.0))
    assert both == pytest.approx(2 / np.log(50.0))


def most_exactly(beta, charge, n, top, ratio):
    """Return the largest log(1 + S / (n + e)) - beta S + lambda e, in the digits of mpmath.

    Candidates are the ends of the parts where S is free and where it is stopped, and the points
    where the derivative vanishes: (lambda + beta kappa) u q = kappa (F + n), u = n + e,
    q = kappa (F + n) - (kappa - 1) u.
    """
    limited = mpmath.isfinite(ratio) and ratio > 1 and top > 0

    def best(e):
        limit = ratio * (top - e) if limited else mpmath.inf
        signal = max(0, min(1 / beta - n - e, limit))
        return mpmath.log(1 + signal / (n + e)) - beta * signal + charge * e

    candidates = [mpmath.mpf(0), top]
    if limited:
        whole, steep = ratio * (top + n), charge + beta * ratio
        candidates.append((ratio * top + n - 1 / beta) / (ratio - 1))
        inside = (steep * whole) ** 2 - 4 * steep * (ratio - 1) * whole
        if inside >= 0:
            candidates += [
                (steep * whole + sign * mpmath.sqrt(inside)) / (2 * steep * (ratio - 1)) - n
                for sign in (-1, 1)
            ]
    return max(best(e) for e in candidates if 0 <= e <= top)


@settings(max_examples=400, deadline=None)
@given(
    slope=st.floats(-4, 0.3),
    price=st.one_of(st.none(), st.floats(-6, 2)),
    noise=st.one_of(st.just(0.0), st.floats(0, 3)),
    near=st.one_of(st.none(), st.floats(-1e-8, 1e-8)),
    ceiling=st.sampled_from([0.0, 0.013, 1.0, 31.0, 1e3]),
    ratio=st.sampled_from([0.5, 1.0, 1.0 + 1e-9, 1.3, 1.9, 2.3, 50.0, 1e4, np.inf]),
)
def test_most_over_prices_in_exact_arithmetic(slope, price, noise, near, ceiling, ratio):
    """Never below the largest value in many digits, and by 1e-9 of its terms at most above.

    Many draws have beta n within 1e-8 of 1, where psi is the difference of nearly equal numbers.
    """
    n = 10**noise
    beta = 10**slope if near is None else (1.0 + near) / n
    charge = 0.0 if price is None else 10**price
    value = float(most_over_prices(*(np.array([v]) for v in (beta, charge, n, ceiling, ratio)))[0])
    with mpmath.workdps(DIGITS):
        most = most_exactly(*(exact(v) for v in (beta, charge, n, ceiling, ratio)))
        # Beyond kappa = 1 by 1e-9 the tangent errs by that much less of its digits.
        room = 1e-5 if ratio == 1.0 + 1e-9 else 1e-9
        assert most <= exact(value)
        assert value <= most + room * (1 + abs(most) + charge * ceiling)


def test_boxes_by_hand():
    """[0, 10] x [0, 4], cut at 6 for user 0, its lower part at 1 for user 1, the rest of that at 2
    for user 0: every cut makes the upper part a new box, and the parts do not overlap."""
    low, high = boxes(((0, 0, 6.0), (0, 1, 1.0), (2, 0, 2.0)), np.array([10.0, 4.0]))
    assert low.tolist() == [[0, 0], [6, 0], [0, 1], [2, 1]]
    assert high.tolist() == [[6, 1], [10, 4], [2, 4], [6, 4]]


def test_multipliers_out_of_range_prove_nothing():
    """A box whose cost is not a number is not passed over: the bound is not a number either."""
    case = signed_case(np.random.default_rng(5), users=2)
    shape = (2, 2)
    point = ModeDual(
        weight=np.ones(2),
        slope=np.full(shape, 0.1),
        error_price=np.zeros(shape),
        beam_price=np.full(shape, 0.1),
        price=np.full((2, 2), 0.5),
        splits=((0, 0, 1.0),),
    )
    assert time_bound(case, point) > 0
    wild = replace(point, slope=np.array([[0.1, 0.1], [np.nan, 0.1]]))
    assert np.isnan(time_bound(case, wild))
