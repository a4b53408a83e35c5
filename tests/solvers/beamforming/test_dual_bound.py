"""The certified bound: above every beam, tight to the relaxation, valid in exact arithmetic."""

import mpmath
import numpy as np
import pytest
from dual_bound import (
    FLOORS,
    Dual,
    certified_bound,
    dual_of_beam,
    dual_sdp,
    largest_eigenvalue_bound,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from multicast_problems import draw_problem, problems, relaxation_value

from finecast.solvers.beamforming.sca import solve_sca
from finecast.solvers.beamforming.sdr import solve_sdr
from finecast.solvers.beamforming.worst_case import mrt_sum, scale_to_power, worst_case_snr


def _random_beam(rng, channel, power):
    beam = rng.standard_normal(channel.shape[1:]) + 1j * rng.standard_normal(channel.shape[1:])
    return scale_to_power(1e6 * beam, power)


@given(problems())
@settings(max_examples=60, deadline=None)
def test_never_below_any_beam(problem):
    """SDR, SCA, MRT and random beams stay below the bound, with no tolerance granted."""
    channel, error, power = problem
    rng = np.random.default_rng(0)
    sca = solve_sca(channel, error, power, iterations=10)
    beams = [sca.beamformer, solve_sdr(channel, error, power, randomisations=8).beamformer]
    beams.append(mrt_sum(channel, power, np.ones(channel.shape[0])))
    beams += [_random_beam(rng, channel, power) for _ in range(5)]
    reached = max(worst_case_snr(channel, error, beam) for beam in beams)
    by_solver = certified_bound(channel, error, power).snr
    by_beam = certified_bound(
        channel, error, power, dual=dual_of_beam(channel, error, power, sca.beamformer)
    ).snr
    assert np.isfinite([by_solver, by_beam]).all()
    assert min(by_solver, by_beam) >= reached


@given(problems(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 8.0]))
@settings(max_examples=100, deadline=None)
def test_any_dual_point_gives_a_valid_bound(problem, seed, spread):
    """Weak duality does not ask where a dual point comes from: random ones over 160 dB too."""
    channel, error, power = problem
    users, nodes, _ = channel.shape
    rng = np.random.default_rng(seed)
    dual = Dual(
        weights=10.0 ** rng.uniform(-spread, spread, users),
        slopes=10.0 ** rng.uniform(-spread, spread, users),
        prices=10.0 ** rng.uniform(-spread, spread, nodes) * rng.integers(0, 2, nodes),
    )
    bound = certified_bound(channel, error, power, dual=dual).snr
    assert np.isfinite(bound)
    assert bound >= solve_sca(channel, error, power, iterations=5).snr


@pytest.mark.parametrize("relative_error", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(("users", "nodes", "antennas"), [(2, 2, 2), (5, 2, 2), (6, 3, 1)])
def test_tight_to_the_relaxation(users, nodes, antennas, relative_error):
    """Within 1e-4 of the value of an independent CVXPY model, and not below it.

    The model's value is that of a feasible matrix, so only its own rounding is granted.
    """
    problem = draw_problem("rayleigh", users, nodes, antennas, relative_error, 21)
    value = relaxation_value(*problem)
    assert value > 0
    channel, error, power = problem
    alone = (np.sqrt(power) * (np.linalg.norm(channel, axis=2) - error)).sum(axis=1).min()
    bound = np.sqrt(certified_bound(*problem, dual=dual_sdp(*problem)).snr)
    assert bound <= min(alone, value) * (1 + 1e-4)
    assert bound >= min(alone, value) * (1 - 1e-12)


def test_dual_of_an_optimal_beam_is_tight():
    """Where the relaxation has a rank-one optimum, the beam alone proves its optimality.

    Seed 1 is such a problem; that its gap is small is what shows that the beam is optimal.
    """
    problem = draw_problem("rayleigh", 4, 2, 4, 0.1, 1)
    beam = solve_sca(*problem, starts=2, tolerance=1e-9, iterations=60)
    bound = certified_bound(*problem, dual=dual_of_beam(*problem, beam.beamformer))
    assert bound.dual is not None
    assert beam.snr <= bound.snr <= beam.snr * (1 + 1e-3)


def test_useless_node_does_not_loosen_the_bound():
    """A node that no user hears above its error radius is silenced, here and in the relaxation."""
    channel, error, power = draw_problem("rayleigh", 3, 2, 2, 0.1, 4)
    extra = channel[:, :1]
    more = (
        np.concatenate([channel, extra], axis=1),
        np.concatenate([error, 1.01 * np.linalg.norm(extra, axis=2)], axis=1),
        np.append(power, 10.0),
    )
    alone = certified_bound(channel, error, power).snr
    assert certified_bound(*more).snr == pytest.approx(alone, rel=1e-9)


def test_node_without_a_price_does_not_spoil_the_bound():
    """mu_n = 0 at a node of hardly any channel: the floor on d_n makes the guess usable."""
    channel, error, power = draw_problem("rayleigh", 3, 2, 2, 0.0, 0)
    channel[:, 1] *= 1e-6
    dual = dual_sdp(channel, error, power)
    tight = certified_bound(channel, error, power, dual=dual)
    assert tight.dual is not None  # not the bound of a single user
    free = Dual(dual.weights, dual.slopes, dual.prices * [1, 0])
    assert certified_bound(channel, error, power, dual=free).snr <= tight.snr * (1 + 1e-4)


@given(problems(max_users=1))
@settings(max_examples=60, deadline=None)
def test_one_user_is_exact(problem):
    """K = 1: (sum_n sqrt(P_n) max(0, norm(g_n) - eps_n))^2, at any error."""
    channel, error, power = problem
    best = (np.sqrt(power) * np.maximum(0, np.linalg.norm(channel, axis=2) - error)).sum() ** 2
    bound = certified_bound(channel, error, power).snr
    assert best * (1 - 1e-12) <= bound <= best * (1 + 1e-6)


@pytest.mark.parametrize("kind", ["zero channel", "huge error"])
def test_hopeless_channels_have_the_bound_zero(kind):
    """A user that cannot be served makes the answer 0, and the bound knows it."""
    assert certified_bound(*draw_problem(kind, 3, 2, 2, 0.0, 0)).snr == 0


def test_no_power_anywhere():
    """All limits 0: no beam, bound 0."""
    channel, error, _ = draw_problem("rayleigh", 2, 2, 2, 0.0, 0)
    assert certified_bound(channel, error, np.zeros(2)).snr == 0


def test_bound_without_the_solver(monkeypatch):
    """When the cone solver has no point, the MRT sum's multipliers still give a finite bound."""
    monkeypatch.setattr("finecast.solvers.beamforming.sdr.solve_conic", lambda *_, **__: False)
    problem = draw_problem("rayleigh", 3, 2, 2, 0.1, 3)
    assert dual_sdp(*problem) is None
    assert solve_sca(*problem).snr <= certified_bound(*problem).snr < np.inf


def _exact_bound(channel, error, power, dual):
    """The smallest f(s) of the module's docstring over the same guesses d, in 60 digits."""
    users, nodes, antennas = channel.shape
    mp = mpmath.mp
    lam = [mp.mpf(float(x)) for x in dual.weights]
    lam = [x / sum(lam) for x in lam]
    b = [x * mp.mpf(float(a)) for x, a in zip(lam, dual.slopes, strict=True)]
    p = [mp.mpf(float(x)) for x in power]
    c = [
        sum(lam[k] * mp.mpf(float(error[k, n])) for k in range(users)) / mp.sqrt(p[n])
        for n in range(nodes)
    ]
    g = [[mp.mpc(complex(x)) for x in row] for row in channel.reshape(users, -1)]
    guess = [(mp.mpf(float(mu)) + c[n]) * p[n] for n, mu in enumerate(dual.prices)]
    best = mp.inf
    for floor in FLOORS:
        d = [(guess[n] / max(guess) + mp.mpf(floor)) / p[n] for n in range(nodes)]
        size = nodes * antennas
        matrix = mp.matrix(size, size)
        for i in range(size):
            for j in range(size):
                entry = sum(b[k] * g[k][i] * mp.conj(g[k][j]) for k in range(users))
                matrix[i, j] = entry / mp.sqrt(d[i // antennas] * d[j // antennas])
        theta = max(mp.eighe(matrix, eigvals_only=True))
        first = sum(x**2 / (4 * y) for x, y in zip(lam, b, strict=True))

        def f(s, first=first, theta=theta, d=d):
            paid = (p[n] * max(mp.mpf(0), s * theta * d[n] - c[n]) for n in range(nodes))
            return first / s + sum(paid)

        scales = [c[n] / (theta * d[n]) for n in range(nodes)]
        order = sorted(range(nodes), key=lambda n: scales[n])
        for last in range(nodes):
            slope = sum(theta * d[n] * p[n] for n in order[: last + 1])
            scales.append(mp.sqrt(first / slope))
        best = min([best] + [f(s) for s in scales if s > 0])
    return best**2


@pytest.mark.parametrize("relative_error", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(6))
def test_holds_in_exact_arithmetic(relative_error, seed):
    """The float64 bound is above the same bound in 60 digits, and by less than 1e-10 of it."""
    channel, error, power = draw_problem("rayleigh", 3, 2, 2, relative_error, seed)
    dual = dual_sdp(channel, error, power)
    bound = certified_bound(channel, error, power, dual=dual)
    if bound.dual is None:  # one user decides: its closed form in 60 digits
        with mpmath.workdps(60):
            k = bound.user
            exact = sum(
                mpmath.sqrt(mpmath.mpf(float(power[n])))
                * max(
                    0,
                    mpmath.norm([mpmath.mpc(complex(x)) for x in channel[k, n]])
                    - mpmath.mpf(float(error[k, n])),
                )
                for n in range(2)
            )
            assert exact**2 <= bound.snr <= exact**2 * (1 + mpmath.mpf("1e-10"))
        return
    with mpmath.workdps(60):
        exact = _exact_bound(channel, error, power, dual)
        assert exact <= bound.snr <= exact * (1 + mpmath.mpf("1e-10"))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 2), (2, 4), (5, 5)])
@pytest.mark.parametrize("spread", [0, 6])
def test_eigenvalue_bound_holds_in_exact_arithmetic(rows, columns, spread):
    """Above the eigenvalue in 60 digits, by at most 1e-11 of it; also for graded rows."""
    rng = np.random.default_rng(rows * 10 + columns)
    for _ in range(3):
        x = rng.standard_normal((rows, columns)) + 1j * rng.standard_normal((rows, columns))
        x *= 10.0 ** rng.uniform(-spread, 0, (rows, 1))
        bound = largest_eigenvalue_bound(x)
        with mpmath.workdps(60):
            m = mpmath.matrix([[mpmath.mpc(complex(value)) for value in row] for row in x])
            exact = max(mpmath.eighe(m * m.H, eigvals_only=True))
            assert exact <= bound <= exact * (1 + mpmath.mpf("1e-11"))


@pytest.mark.parametrize(
    ("weights", "slopes", "prices", "name"),
    [
        ([0, 0], [1, 1], [1], "dual.weights: all are 0"),
        ([1, -1], [1, 1], [1], r"dual.weights\[1\]: -1"),
        ([1, 1], [1, 0], [1], r"dual.slopes\[1\]: 0"),
        ([1, 1], [1, 1], [np.nan], r"dual.prices\[0\]: nan"),
        ([1, 1], [1, 1], [1, 1], "dual.prices: shape"),
    ],
)
def test_bad_dual_is_named(weights, slopes, prices, name):
    """A dual point of the wrong shape or sign is refused by name."""
    dual = Dual(np.array(weights), np.array(slopes), np.array(prices))
    with pytest.raises(ValueError, match=f"^{name}"):
        certified_bound(np.ones((2, 1, 1)), np.zeros((2, 1)), np.ones(1), dual=dual)
