"""solve_multicast: closed forms, invariances, masks, degenerate groups, chunks, refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_channels import rayleigh, relative, snr_of, spread

from finecast.solvers.beamforming.kernel.multicast import (
    MulticastBatch,
    MulticastOptions,
    solve_multicast,
)

POWER = 1e-12
"""Relative tolerance on the power limit that the beams promise."""


def solve(
    channel: object,
    error: object,
    power: object,
    node_mask: object = None,
    user_mask: object = None,
    **options: object,
) -> MulticastBatch:
    """solve_multicast with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return solve_multicast(
            channel,
            error,
            power,
            MulticastOptions(**options),
            node_mask=node_mask,
            user_mask=user_mask,
        )


def check(channel: object, error: object, power: object, answer: MulticastBatch) -> None:
    """Beams within power, SNR what the closed form says, bound finite and not below it."""
    spent = np.linalg.norm(answer.beamformer, axis=-1) ** 2
    assert (spent <= np.broadcast_to(power, spent.shape) * (1 + POWER)).all()
    np.testing.assert_allclose(
        answer.snr, snr_of(channel, error, answer.beamformer), rtol=1e-9, atol=1e-12
    )
    assert np.isfinite(answer.bound).all()
    assert (answer.bound >= answer.snr).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.2])
def test_single_user_is_matched_filter(share: float) -> None:
    """K = 1: u = sum_n sqrt(P_n) max(0, norm(g_n) - eps_n), reached and certified."""
    rng = np.random.default_rng(1)
    channel = spread(rng, 7, 1, 3, 4)
    error = relative(channel, 1.0) * rng.uniform(0, share, (7, 1, 3))
    power = rng.uniform(0.1, 5, (7, 3))
    answer = solve(channel, error, power)
    norm = np.linalg.norm(channel, axis=-1)
    exact = (np.sqrt(power) * np.maximum(0, norm - error)[:, 0]).sum(-1) ** 2
    np.testing.assert_allclose(answer.snr, exact, rtol=1e-9)
    np.testing.assert_allclose(answer.bound, exact, rtol=1e-9)
    check(channel, error, power, answer)


def test_two_orthogonal_users_share_one_node() -> None:
    """g_1 = (a, 0), g_2 = (0, b): |w_i| proportional to 1 / gain, u = a b / sqrt(a^2 + b^2)."""
    channel = np.array([[[[3.0, 0.0]], [[0.0, 4.0]]]], dtype=complex)
    answer = solve(channel, np.zeros((1, 2, 1)), [1.0])
    np.testing.assert_allclose(answer.snr, (12 / 5) ** 2, rtol=1e-7)
    np.testing.assert_allclose(answer.bound, (12 / 5) ** 2, rtol=1e-6)


def test_identical_users_are_one_user() -> None:
    """Copies of a user change nothing: the matched filter stays optimal."""
    channel = np.repeat(rayleigh(np.random.default_rng(2), 3, 1, 2, 3), 5, axis=1)
    error = relative(channel, 0.1)
    answer = solve(channel, error, [1.0, 2.0])
    single = solve(channel[:, :1], error[:, :1], [1.0, 2.0])
    np.testing.assert_allclose(answer.snr, single.snr, rtol=1e-7)
    np.testing.assert_allclose(answer.bound, single.bound, rtol=1e-6)


@pytest.mark.parametrize("batch", [2, 6])
@pytest.mark.parametrize("share", [0.0, 0.15])
def test_invariances(batch: int, share: float) -> None:
    """Rotating a node's antennas, permuting users or nodes, moving scale between channel and
    power leaves SNR and bound alone: only Gram matrices matter, and starts go by rank.
    """
    rng = np.random.default_rng(3)
    channel = spread(rng, batch, 4, 3, 4)
    error, power = relative(channel, share), rng.uniform(0.5, 2, 3)
    answer = solve(channel, error, power)

    rotated = channel.copy()
    for n in range(3):
        unitary, _ = np.linalg.qr(rayleigh(rng, 1, 1, 4, 4)[0, 0])
        rotated[:, :, n] = channel[:, :, n] @ unitary
    users, nodes = rng.permutation(4), rng.permutation(3)
    variants = [
        (rotated, error, power),
        (channel[:, users], error[:, users], power),
        (channel[:, :, nodes], error[:, :, nodes], power[nodes]),
        (channel * 1e3, error * 1e3, power * 1e-6),
        (channel * 1e-5, error * 1e-5, power * 1e10),
    ]
    for variant in variants:
        other = solve(*variant)
        np.testing.assert_allclose(other.snr, answer.snr, rtol=1e-4)
        np.testing.assert_allclose(other.bound, answer.bound, rtol=1e-3)


def test_scaling_channel_and_error_scales_snr() -> None:
    """Channels and errors times c: SNR and bound times c^2, down to the last bits."""
    channel = spread(np.random.default_rng(4), 5, 3, 2, 2)
    error = relative(channel, 0.1)
    one, four = solve(channel, error, [1, 1]), solve(4 * channel, 4 * error, [1, 1])
    np.testing.assert_allclose(four.snr, 16 * one.snr, rtol=1e-10)
    np.testing.assert_allclose(four.bound, 16 * one.bound, rtol=1e-10)


def test_more_power_or_nodes_never_hurt() -> None:
    """What fewer nodes or less power reach is below the bound with more (monotone optimum)."""
    rng = np.random.default_rng(5)
    channel = spread(rng, 12, 4, 3, 2)
    error = relative(channel, 0.1)
    whole = solve(channel, error, np.ones(3), tolerance=1e-3)
    for mask in ([1, 0, 0], [0, 1, 1], [1, 1, 0]):
        part = solve(channel, error, np.ones(3), node_mask=np.tile(np.array(mask, bool), (12, 1)))
        assert (part.snr <= whole.bound).all()
    less = solve(channel, error, 0.5 * np.ones(3), tolerance=1e-3)
    assert (less.snr <= whole.bound).all()
    np.testing.assert_array_less(less.bound, whole.bound * (1 + 2e-3))
    np.testing.assert_array_less(less.snr, whole.snr * (1 + 1e-2))


@pytest.mark.parametrize("batch", [2, 5])
def test_masks_are_removal(batch: int) -> None:
    """A masked user or node leaves the same problem as one that was never there."""
    rng = np.random.default_rng(6)
    channel = spread(rng, batch, 5, 3, 2)
    error, power = relative(channel, 0.1), np.array([1.0, 2.0, 0.5])
    users, nodes = np.array([True, False, True, True, False]), np.array([True, False, True])
    masked = solve(
        channel,
        error,
        power,
        node_mask=np.tile(nodes, (batch, 1)),
        user_mask=np.tile(users, (batch, 1)),
        tolerance=1e-3,
    )
    removed = solve(
        channel[:, users][:, :, nodes], error[:, users][:, :, nodes], power[nodes], tolerance=1e-3
    )
    np.testing.assert_allclose(masked.snr, removed.snr, rtol=1e-6)
    np.testing.assert_allclose(masked.bound, removed.bound, rtol=2e-3)
    assert (masked.beamformer[:, 1] == 0).all()


def test_zero_power_node_is_absent() -> None:
    """A node without power is silent, and the answer is that of the other nodes."""
    channel = spread(np.random.default_rng(7), 5, 3, 2, 2)
    error = relative(channel, 0.1)
    silent = solve(channel, error, [1.0, 0.0])
    alone = solve(channel[:, :, :1], error[:, :, :1], [1.0])
    np.testing.assert_allclose(silent.snr, alone.snr, rtol=1e-6)
    assert (silent.beamformer[:, 1] == 0).all()


def test_numpy_and_torch_agree() -> None:
    """Tensors in, tensors out, with the same numbers as arrays."""
    channel = spread(np.random.default_rng(8), 5, 4, 2, 3)
    error = relative(channel, 0.1)
    arrays = solve(channel, error, np.ones(2))
    tensors = solve(torch.tensor(channel), torch.tensor(error), torch.ones(2))
    assert isinstance(arrays.beamformer, np.ndarray)
    assert isinstance(tensors.snr, torch.Tensor)
    assert tensors.beamformer.dtype == torch.complex128
    assert arrays.snr.dtype == np.float64
    for name in ("beamformer", "snr", "bound"):
        np.testing.assert_array_equal(getattr(arrays, name), getattr(tensors, name).numpy())


def test_single_path_agrees_with_batch() -> None:
    """Problems solved one at a time (NumPy, double) reach what the batch (complex64) reaches."""
    rng = np.random.default_rng(9)
    channel = spread(rng, 12, 5, 3, 2)
    error = relative(channel, 0.1) * (rng.random((12, 1, 3)) < 0.5)
    batch = solve(channel, error, np.ones(3), dtype=torch.complex128)
    for i in range(12):
        one = solve(channel[i : i + 1], error[i : i + 1], np.ones(3))
        np.testing.assert_allclose(one.snr[0], batch.snr[i], rtol=1e-4)
        np.testing.assert_allclose(one.bound[0], batch.bound[i], rtol=1e-3)


def test_chunks_and_seeds() -> None:
    """The division into chunks does not matter; the same seed gives the same answer."""
    channel = spread(np.random.default_rng(10), 24, 4, 2, 2)
    error = relative(channel, 0.1)
    whole = solve(channel, error, np.ones(2), seed=5)
    again = solve(channel, error, np.ones(2), seed=5)
    parts = solve(channel, error, np.ones(2), seed=5, chunk=8)
    np.testing.assert_array_equal(whole.beamformer, again.beamformer)
    np.testing.assert_allclose(parts.snr, whole.snr, rtol=1e-5)
    np.testing.assert_allclose(parts.bound, whole.bound, rtol=1e-4)


def test_empty_batch() -> None:
    """No problems in, no answers out."""
    answer = solve(np.zeros((0, 3, 2, 2), complex), np.zeros((0, 3, 2)), np.ones(2))
    assert answer.beamformer.shape == (0, 2, 2)
    assert answer.snr.shape == answer.bound.shape == (0,)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_hopeless_groups_get_nothing(batch: int, tolerance: float | None) -> None:
    """Errors as large as the channel, or no channel at all: SNR 0 and bound 0, no NaN."""
    channel = rayleigh(np.random.default_rng(11), batch, 3, 2, 2)
    for g, e in (
        (channel, relative(channel, 1.0)),
        (channel, relative(channel, 7.0)),
        (0 * channel, np.zeros((batch, 3, 2))),
        (channel * [[[[1.0]], [[0.0]], [[1.0]]]], np.zeros((batch, 3, 2))),
    ):
        answer = solve(g, e, np.ones(2), tolerance=tolerance, boxes=8)
        check(g, e, 1.0, answer)
        assert (answer.snr == 0).all()
        assert (answer.bound < 1e-9).all()


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small problems, degenerate ones included, all decided by a few drawn numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    users, nodes = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    antennas = draw(st.integers(1, 3))
    batch = draw(st.sampled_from([1, 4]))
    spread_db = draw(st.sampled_from([0.0, 30.0, 80.0, 160.0]))
    channel = spread(rng, batch, users, nodes, antennas, spread_db)
    error = relative(channel, draw(st.sampled_from([0.0, 0.1, 0.6, 1.0])))
    kind = draw(st.sampled_from(["plain", "identical", "orthogonal", "silent", "patchy"]))
    if kind == "identical":
        channel[:], error[:] = channel[:, :1], error[:, :1]
    elif kind == "orthogonal":
        channel = channel * (np.arange(users)[:, None, None] % antennas == np.arange(antennas))
    elif kind == "silent":
        channel[:, :, 0] = 0
    elif kind == "patchy":
        channel = channel * (rng.random(channel.shape[:3]) < 0.6)[..., None]
        error = error * (rng.random(error.shape) < 0.5)
    power = rng.uniform(0, 2, nodes) * (rng.random(nodes) < 0.8)
    return channel, error, power


@settings(max_examples=120, deadline=None)
@given(problem=problems(), tolerance=st.sampled_from([None, 1e-3]))
def test_bound_is_never_below_any_beams(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], tolerance: float | None
) -> None:
    """No beams, random or from other starts, exceed the bound; answers are feasible and finite."""
    channel, error, power = problem
    answer = solve(channel, error, power, tolerance=tolerance, boxes=5)
    check(channel, error, power, answer)
    rng = np.random.default_rng(0)
    batch, _, nodes, antennas = channel.shape
    for _ in range(10):
        beams = rayleigh(rng, 1, batch, nodes, antennas)[0]
        mixed = np.einsum("bk,bkna->bna", rayleigh(rng, 1, 1, *channel.shape[:2])[0, 0], channel)
        for w in (beams, mixed):
            norm = np.linalg.norm(w, axis=-1, keepdims=True)
            w = w / np.where(norm > 0, norm, 1) * np.sqrt(power)[:, None]
            assert (snr_of(channel, error, w) <= answer.bound * (1 + 1e-12)).all()
    others = solve(channel, error, power, starts=8, seed=1)
    assert (others.snr <= answer.bound * (1 + 1e-12)).all()


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_one_try_alone(batch: int, share: float) -> None:
    """Without other starts: proven all the same, no better than the search that begins with it."""
    channel = rayleigh(np.random.default_rng(5), 6, 12, 5, 4)
    error = relative(channel, share)
    for at in range(0, 6, batch):
        part = channel[at : at + batch], error[at : at + batch], np.ones(5)
        one, full = solve(*part, starts=0), solve(*part, starts=2)
        check(*part, one)
        assert (one.snr <= full.snr * (1 + 1e-9)).all()
        assert (one.snr >= 0.5 * full.snr).all()
        assert (full.snr <= one.bound).all()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("channel", {"channel": np.full((2, 3, 2, 2), np.nan, complex)}),
        ("channel", {"channel": np.zeros((2, 3, 2), complex)}),
        ("channel", {"channel": np.zeros((2, 0, 2, 2), complex)}),
        ("error", {"error": np.zeros((2, 3))}),
        ("error", {"error": np.full((2, 3, 2), -1.0)}),
        ("error", {"error": np.full((2, 3, 2), np.inf)}),
        ("power", {"power": np.ones(3)}),
        ("power", {"power": np.array([1.0, -1.0])}),
        ("power", {"power": np.array([1.0, np.nan])}),
        ("node_mask", {"node_mask": np.ones((2, 3), bool)}),
        ("node_mask", {"node_mask": np.ones((2, 2))}),
        ("user_mask", {"user_mask": np.zeros((2, 3), bool)}),
        ("user_mask", {"user_mask": np.ones((3, 3), bool)}),
        ("starts", {"starts": -1}),
        ("starts", {"starts": 0, "tolerance": 1e-3}),
        ("tolerance", {"tolerance": 0.0}),
        ("tolerance", {"tolerance": float("nan")}),
        ("boxes", {"boxes": 0}),
        ("chunk", {"chunk": 0}),
        ("dtype", {"dtype": torch.float64}),
    ],
)
def test_bad_input_is_named(name: str, change: dict[str, object]) -> None:
    """Every refusal is a one-line ValueError that starts with the argument's name."""
    arguments: dict[str, object] = {
        "channel": np.ones((2, 3, 2, 2), complex),
        "error": np.zeros((2, 3, 2)),
        "power": np.ones(2),
    }
    arguments |= change
    first = [arguments.pop(key) for key in ("channel", "error", "power")]
    with pytest.raises(ValueError, match=rf"^{name}[:\[][^\n]*$"):
        solve(*first, **arguments)
