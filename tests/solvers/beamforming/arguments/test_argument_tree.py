"""Beams proven by trees: against grids, many random starts, sampled errors, and themselves."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_channels import rayleigh, relative, snr_of, spread

from finecast.solvers.beamforming.arguments.messages import KnownBeams, TreeOptions, prove_beams
from finecast.solvers.beamforming.by_name import KERNEL, solve_messages
from finecast.solvers.beamforming.kernel.cones import ConeSteps
from finecast.solvers.deadline import Deadline


def solved(channel, error, power, users=None, nodes=None):
    """Masks, and beams and bounds of the kernel."""
    batch, k, n, _ = channel.shape
    masks = {
        "user_mask": np.ones((batch, k), bool) if users is None else users,
        "node_mask": np.ones((batch, n), bool) if nodes is None else nodes,
    }
    found = solve_messages(KERNEL, channel, error, power, **masks)
    return masks, KnownBeams(found.beamformer, found.snr, found.bound)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("users", [2, 3, 5])
def test_two_antennas_apart_reach_the_grid(users, share):
    """Two nodes of one antenna: the optimum over two amplitudes and a phase, by enumeration.

    One amplitude is 1 without errors, and with them too: a common factor scales every margin. The
    bound is between the grid's best and a little above it, by the grid's own coarseness."""
    channel = rayleigh(np.random.default_rng(users), 12, users, 2, 1)
    error = relative(channel, share)
    level = np.linspace(0, 1, 81)[:, None]
    turn = np.exp(2j * np.pi * np.arange(240) / 240)
    first = np.stack([np.ones((81, 240)), level * turn], -1)
    second = np.stack([level * np.ones(240), np.ones((81, 1)) * turn], -1)
    beams = np.concatenate([first, second]).reshape(-1, 2)
    received = np.abs(np.einsum("bkn,sn->bsk", channel[..., 0].conj(), beams))
    lost = np.einsum("bkn,sn->bsk", error, np.abs(beams))
    grid = np.maximum(received - lost, 0).min(-1).max(-1) ** 2
    masks, known = solved(channel, error, np.ones(2))
    found, _ = prove_beams(channel, error, np.ones(2), **masks, known=known)
    assert (found.bound >= grid).all()
    reached = grid > 0.1
    assert reached.sum() >= 6
    np.testing.assert_array_less(found.bound[reached], grid[reached] * 1.03)
    assert (found.snr >= grid / 1.005).all()


def test_one_node_reaches_the_grid():
    """Two antennas at one node and three users: the optimum over an angle and a phase."""
    channel = rayleigh(np.random.default_rng(7), 12, 3, 1, 2)
    error = np.zeros((12, 3, 1))
    angle = np.linspace(0, np.pi / 2, 181)[:, None]
    turn = np.exp(2j * np.pi * np.arange(360) / 360)
    beams = np.stack([np.cos(angle) * np.ones(360), np.sin(angle) * turn], -1).reshape(-1, 2)
    grid = (np.abs(np.einsum("bka,sa->bsk", channel[:, :, 0].conj(), beams)) ** 2).min(-1).max(-1)
    masks, known = solved(channel, error, np.ones(1))
    found, _ = prove_beams(channel, error, np.ones(1), **masks, known=known)
    assert (found.bound >= grid).all()
    np.testing.assert_array_less(found.bound, grid * 1.01)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("kind", [rayleigh, spread])
def test_no_start_finds_a_beam_above_the_bound(share, kind):
    """Of 36 small problems each, by 8 random starts of cone steps, and by the beams themselves."""
    rng = np.random.default_rng(11)
    for users, nodes, antennas in ((3, 1, 2), (4, 2, 1), (5, 3, 2)):
        channel = kind(rng, 12, users, nodes, antennas)
        error, power = relative(channel, share), rng.uniform(0.5, 2, nodes)
        masks, known = solved(channel, error, power)
        for count in (1, 40):
            found, _ = prove_beams(
                channel, error, power, **masks, known=known, options=TreeOptions(nodes=count)
            )
            assert (found.snr >= known.snr).all()
            assert (found.bound <= known.bound).all()
            assert (found.snr <= found.bound).all()
            np.testing.assert_allclose(
                found.snr, snr_of(channel, error, found.beamformer), rtol=1e-9, atol=1e-9
            )
            spent = np.linalg.norm(found.beamformer, axis=-1) ** 2
            assert (spent <= power * (1 + 1e-12)).all()
        root = np.sqrt(power)
        for b in range(12):
            steps = ConeSteps(channel[b] * root[:, None], error[b] * root)
            phases = np.exp(2j * np.pi * rng.random((8, users)))
            best = max(steps.climb(phase, 1e-4)[1] for phase in phases)
            assert best**2 <= found.bound[b] * (1 + 1e-12)


def test_errors_within_the_balls():
    """The beam keeps its SNR for all sampled errors. No beam has more than the bound for all, the
    error that turns against its signal among them."""
    rng = np.random.default_rng(5)
    channel = rayleigh(rng, 10, 4, 2, 2)
    error = relative(channel, 0.2)
    masks, known = solved(channel, error, np.ones(2))
    found, _ = prove_beams(channel, error, np.ones(2), **masks, known=known)
    random = rng.standard_normal((40, 10, 2, 2)) + 1j * rng.standard_normal((40, 10, 2, 2))
    random /= np.linalg.norm(random, axis=-1, keepdims=True)
    for beam in (found.beamformer, *random):
        signal = np.einsum("bkna,bna->bk", channel.conj(), beam)
        norm = np.linalg.norm(beam, axis=-1, keepdims=True)
        against = -(signal / np.abs(signal)).conj()[:, :, None, None] * (beam / norm)[:, None]
        drawn = rng.standard_normal((50, *channel.shape)) + 1j * rng.standard_normal(
            (50, *channel.shape)
        )
        drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
        turned = np.concatenate([drawn, against[None]]) * error[..., None]
        heard = np.abs(np.einsum("sbkna,bna->sbk", (channel + turned).conj(), beam)) ** 2
        least = heard.min((0, 2))
        assert (least <= found.bound * (1 + 1e-12)).all()
    signal = np.einsum("bkna,bna->bk", channel.conj(), found.beamformer)
    least = np.abs(
        np.einsum("sbkna,bna->sbk", (channel + drawn * error[..., None]).conj(), found.beamformer)
    )
    assert ((least**2).min((0, 2)) >= found.snr * (1 - 1e-12)).all()


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_more_boxes_never_prove_less(share):
    """Bounds fall with the boxes allowed, from those given on; with 400 all of these are proven."""
    channel = rayleigh(np.random.default_rng(3), 4, 6, 3, 1)
    error = relative(channel, share)
    masks, known = solved(channel, error, np.ones(3))
    before, examined = known.bound, []
    for count in (0, 1, 8, 40, 400):
        found, boxes = prove_beams(
            channel, error, np.ones(3), **masks, known=known, options=TreeOptions(nodes=count)
        )
        assert (found.bound <= before * (1 + 1e-12)).all()
        assert (boxes <= count).all()
        before, examined = found.bound, [*examined, boxes.sum()]
    assert examined[0] == 0
    assert examined == sorted(examined)
    assert (np.log1p(found.bound) <= 1.00101 * np.log1p(found.snr)).all()
    assert (np.log1p(known.bound) > 1.01 * np.log1p(found.snr)).any()


def test_nothing_is_done_without_boxes_or_time():
    """No boxes, or a deadline that is over: the beams and bounds are those given."""
    channel = rayleigh(np.random.default_rng(4), 4, 6, 3, 1)
    error = relative(channel, 0.1)
    masks, known = solved(channel, error, np.ones(3))
    for given in ({"options": TreeOptions(nodes=0)}, {"deadline": Deadline.after(0)}):
        found, examined = prove_beams(channel, error, np.ones(3), **masks, known=known, **given)
        np.testing.assert_array_equal(found.bound, known.bound)
        np.testing.assert_array_equal(found.beamformer, known.beamformer)
        assert not examined.any()


def test_masks_powers_and_company():
    """Absent users and nodes change nothing, powers go into the channels, and a message's tree does
    not depend on those beside it."""
    rng = np.random.default_rng(6)
    channel = rayleigh(rng, 3, 5, 3, 1)
    error, power = relative(channel, 0.1), np.array([4.0, 1.0, 0.25])
    scaled = channel / np.sqrt(power)[:, None], error / np.sqrt(power)
    wide = rayleigh(rng, 3, 7, 4, 1), np.zeros((3, 7, 4))
    for filled, own in zip(wide, scaled, strict=True):
        filled[np.ix_(range(3), [0, 2, 3, 4, 6], [0, 1, 3])] = own
    users, nodes = np.ones((3, 7), bool), np.ones((3, 4), bool)
    users[:, [1, 5]], nodes[:, 2] = False, False
    masks, known = solved(channel, error, np.ones(3))
    found, examined = prove_beams(channel, error, np.ones(3), **masks, known=known)
    beam = np.zeros((3, 4, 1), complex)
    beam[:, [0, 1, 3]] = known.beamformer * np.sqrt(power)[:, None]
    same, boxes = prove_beams(
        *wide,
        np.array([4.0, 1.0, 9.0, 0.25]),
        user_mask=users,
        node_mask=nodes,
        known=KnownBeams(beam, known.snr, known.bound),
    )
    np.testing.assert_array_equal(boxes, examined)
    np.testing.assert_allclose(same.bound, found.bound, rtol=1e-9)
    assert not same.beamformer[:, 2].any()
    for b in range(3):
        one = KnownBeams(known.beamformer[b : b + 1], known.snr[b : b + 1], known.bound[b : b + 1])
        alone, _ = prove_beams(
            channel[b : b + 1],
            error[b : b + 1],
            np.ones(3),
            user_mask=masks["user_mask"][:1],
            node_mask=masks["node_mask"][:1],
            known=one,
        )
        np.testing.assert_allclose(alone.bound, found.bound[b : b + 1], rtol=1e-9)


def test_a_user_far_above_the_others_is_left_out():
    """120 dB apart: the bound is that of the others, and the beam serves all."""
    channel = rayleigh(np.random.default_rng(9), 2, 5, 2, 1)
    channel[:, 0] *= 1e8
    error = np.zeros((2, 5, 2))
    masks, known = solved(channel, error, np.ones(2))
    found, _ = prove_beams(channel, error, np.ones(2), **masks, known=known)
    masks_rest, known_rest = solved(channel[:, 1:], error[:, 1:], np.ones(2))
    rest, _ = prove_beams(channel[:, 1:], error[:, 1:], np.ones(2), **masks_rest, known=known_rest)
    assert (found.bound <= rest.bound * 1.002).all()
    assert (found.bound >= rest.snr * (1 - 1e-9)).all()


@pytest.mark.parametrize(
    ("name", "value"), [("nodes", -1), ("tolerance", 0.0), ("tolerance", np.nan)]
)
def test_options_out_of_range(name, value):
    """Named, with the value."""
    with pytest.raises(ValueError, match=f"{name}: {value} is not allowed"):
        TreeOptions(**{name: value})
