"""Random and degenerate multicast problems for hypothesis, and a CVXPY model to compare with."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
from hypothesis import strategies as st

KINDS = (
    "rayleigh",
    "identical users",
    "orthogonal users",
    "zero channel",
    "zero node",
    "silent node",
    "80 dB",
    "huge error",
)


def draw_problem(kind, users, nodes, antennas, relative_error, seed):
    """Channel (K, N, A), error (K, N) and power (N,) of one kind, SNRs of order one."""
    rng = np.random.default_rng(seed)
    shape = (users, nodes, antennas)
    channel = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    power = rng.uniform(0.2, 3.0, nodes)
    if kind == "identical users":
        channel[:] = channel[0]
    elif kind == "orthogonal users":
        channel[:] = np.eye(users, nodes * antennas).reshape(shape)
    elif kind == "zero channel":
        channel[0] = 0
    elif kind == "zero node":
        channel[:, 0] = 0
    elif kind == "silent node":
        power[0] = 0
    elif kind == "80 dB":
        channel *= 10.0 ** rng.uniform(-4, 0, (users, 1, 1))
    error = relative_error * np.linalg.norm(channel, axis=2)
    if kind == "huge error":
        error = 2 * np.linalg.norm(channel, axis=2)
    return channel, error, power


def problems(max_users=4, max_nodes=3, max_antennas=3):
    """Strategy of (channel, error, power)."""
    return st.builds(
        draw_problem,
        st.sampled_from(KINDS),
        st.integers(1, max_users),
        st.integers(1, max_nodes),
        st.integers(1, max_antennas),
        st.sampled_from([0.0, 0.1, 0.5, 0.9]),
        st.integers(0, 2**32 - 1),
    )


def relaxation_value(channel, error, power):
    """Value u of the relaxation of docs/formulation.md section 4.1, written down as it stands.

    No scaling, no reduction of antennas, the full matrix X: independent of the code under test.
    Of the matrix returned, made feasible, the value is taken, so it is never above the optimum.
    """
    users, nodes, antennas = channel.shape
    vectors = channel.reshape(users, -1)
    covariance = cp.Variable((nodes * antennas,) * 2, hermitian=True)
    u = cp.Variable()
    diagonal = cp.real(cp.diag(covariance))
    powers = [cp.sum(diagonal[n * antennas : (n + 1) * antennas]) for n in range(nodes)]
    constraints = [covariance >> 0] + [powers[n] <= power[n] for n in range(nodes)]
    for k in range(users):
        gain = cp.real(cp.conj(vectors[k]) @ covariance @ vectors[k])
        lost = sum(error[k, n] / np.sqrt(power[n]) * powers[n] for n in range(nodes))
        constraints.append(cp.sqrt(gain) >= u + lost)
    with warnings.catch_warnings():  # "may be inaccurate": what it returns is re-evaluated below
        warnings.simplefilter("ignore")
        cp.Problem(cp.Maximize(u), constraints).solve(cp.CLARABEL, accept_unknown=True)
    values, basis = np.linalg.eigh(covariance.value)
    x = (basis * np.maximum(0, values)) @ basis.conj().T
    p = np.diagonal(x).real.reshape(nodes, antennas).sum(axis=1)
    excess = max(1.0, (p / power).max())
    x, p = x / excess, p / excess
    gains = np.einsum("ki,ij,kj->k", vectors.conj(), x, vectors).real
    return float((np.sqrt(gains) - error @ (p / np.sqrt(power))).min())
