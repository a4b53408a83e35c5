"""Bounds within intervals of arguments: never below a beam, whatever the guess behind them."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_channels import rayleigh, relative, spread

from finecast.solvers.beamforming.arguments.certificate import Box, Messages, proven_bound
from finecast.solvers.beamforming.arguments.interior_point import solve_boxes
from finecast.solvers.beamforming.arguments.intervals import Intervals, propagated


def beams_and_boxes(rng, batch, users, nodes, antennas, error, kind=rayleigh):
    """Random problems and beams, boxes that hold the beams, and what the beams reach."""
    channel = kind(rng, batch, users, nodes, antennas)
    channel /= np.linalg.norm(channel, axis=-1).sum(-1).min(-1)[:, None, None, None]
    messages = Messages(channel, relative(channel, error))
    beam = rng.standard_normal((batch, nodes, antennas)) + 1j * rng.standard_normal(
        (batch, nodes, antennas)
    )
    amplitude = rng.uniform(0, 1, (batch, nodes)) ** 0.3
    beam *= (amplitude / np.linalg.norm(beam, axis=-1))[..., None]
    received = np.einsum("bkna,bna->bk", channel.conj(), beam)
    reached = (np.abs(received) - (messages.error @ amplitude[..., None])[..., 0]).min(-1)
    theta = np.angle(received)
    middle = theta[:, :, None] - theta[:, None]
    half = rng.choice([0.0, 0.3, 1.0, np.pi / 2, np.pi], (batch, 1, 1)) * np.ones_like(middle)
    half = np.minimum(np.pi, half + 1e-9)
    shift = np.triu(rng.uniform(-1, 1, middle.shape), 1)
    middle += half * (shift - shift.swapaxes(1, 2))
    diagonal = np.arange(users)
    half[:, diagonal, diagonal] = 0
    share = rng.uniform(0, 1, (2, batch, nodes))
    low, high = amplitude * share[0], amplitude + (1 - amplitude) * share[1]
    return messages, Box(Intervals(middle, half), low, high), reached


@pytest.mark.parametrize("error", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("kind", [rayleigh, spread])
def test_no_guess_bounds_below_a_beam(error, kind):
    """Random, tiny, huge, empty and wrong guesses on 600 boxes: the beam in the box stays below."""
    rng = np.random.default_rng(0)
    for users, nodes, antennas in ((2, 1, 2), (3, 2, 1), (5, 3, 2)):
        messages, box, reached = beams_and_boxes(rng, 100, users, nodes, antennas, error, kind)
        shape = (100, users, users)
        guess = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        guess = guess * 10.0 ** rng.integers(-8, 8, (100, 1, 1))
        guess[:5], guess[5:10, 0, 0], guess[10, 0, 1] = 0, -1, np.nan
        guess[11, 0, 1] = np.inf
        price = 10.0 ** rng.uniform(-6, 6, (100, nodes))
        price[12] = 0
        # Pointed at the middle of every wedge, M_kj is within its cone.
        inside = np.abs(guess) * np.exp(1j * box.arguments.middle)
        for matrix in (guess, inside):
            bound = proven_bound(messages, box, matrix, price)
            assert not np.isnan(bound).any()
            assert (bound >= reached).all()


@pytest.mark.parametrize("error", [0.0, 0.1, 0.4])
def test_the_best_guess_bounds_below_no_beam_and_is_tight(error):
    """The relaxation's own points, on boxes around a beam; narrow boxes leave little above it."""
    rng = np.random.default_rng(1)
    messages, box, reached = beams_and_boxes(rng, 150, 4, 2, 2, error)
    some = reached > 0.05
    messages, box, reached = messages.take(some), box.take(some), reached[some]
    solved = solve_boxes(messages, box, reached)
    assert (solved.bound >= reached).all()
    # What came out may be corrupted: the bound is computed again, and holds.
    for noise in (0.01, 0.3, 3.0):
        shape = solved.matrix.shape
        turned = solved.matrix * (1 + noise * rng.standard_normal(shape))
        turned = turned * np.exp(1j * noise * rng.standard_normal(shape))
        price = solved.price * np.exp(noise * rng.standard_normal(solved.price.shape))
        again = proven_bound(messages, box, turned, price)
        assert (again >= reached).all()
    exact = proven_bound(messages, box, solved.matrix, solved.price)
    np.testing.assert_array_equal(exact, solved.bound)


def test_narrower_boxes_prove_more():
    """A point of a box is one of every box within, and proves no more there."""
    rng = np.random.default_rng(2)
    messages, box, _ = beams_and_boxes(rng, 60, 4, 2, 2, 0.1)
    solved = solve_boxes(messages, box, np.full(60, 0.3))
    narrow, possible = propagated(Intervals(box.arguments.middle, box.arguments.half * 0.9))
    middle = (box.low + box.high) / 2
    inner = Box(narrow, (box.low + middle) / 2, (box.high + middle) / 2)
    within = proven_bound(messages, inner, solved.matrix, solved.price)
    some = possible & (narrow.half <= box.arguments.half).all((1, 2))
    assert some.sum() > 30
    # The wedge moves with its middle only where triangles narrow it: compare without.
    still = (narrow.middle == box.arguments.middle).all((1, 2)) & some
    assert (within[still] <= solved.bound[still] * (1 + 1e-9)).all()


def test_many_nodes_with_errors_are_refused():
    """All corners of the amplitudes are looked at: no more than 8 nodes."""
    messages = Messages(np.ones((1, 2, 9, 1), complex), np.full((1, 2, 9), 0.1))
    with pytest.raises(ValueError, match="9 nodes with errors, allowed are 8"):
        proven_bound(messages, Box.whole(messages), np.eye(2)[None] + 0j, np.ones((1, 9)))
