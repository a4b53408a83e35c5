"""Pricing of modes: the gradient, the judge's rates, and closed forms that it must reach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from finecast.solvers.spatial.multigroup import (
    MultiGroup,
    ScaledModes,
    full_power,
    guaranteed_rates,
)
from finecast.solvers.spatial.pricing import price_modes
from finecast.solvers.spatial.pricing_ascent import listened, value_and_gradient
from finecast.solvers.spatial.pricing_starts import regularised_zero_forcing
from finecast.solvers.spatial.pricing_wmmse import wmmse_steps


def drawn(seed=0, *, users=5, nodes=3, antennas=2, messages=3, error=0.0, strength=3.0):
    """Return a problem with Rayleigh channels and random, never empty groups and senders."""
    rng = np.random.default_rng(seed)
    channel = rng.normal(size=(users, nodes, antennas, 2)) @ [1, 1j] * strength
    listening = rng.random((messages, users)) < 0.5
    listening[np.arange(messages), rng.integers(users, size=messages)] = True
    sending = rng.random((messages, nodes)) < 0.7
    sending[np.arange(messages), rng.integers(nodes, size=messages)] = True
    return MultiGroup(
        channel=channel,
        error=error * np.linalg.norm(channel, axis=2),
        power=rng.uniform(0.5, 2.0, nodes),
        users=listening,
        nodes=sending,
    )


def in_double(problem, price):
    """Return the tensors of the search in double precision."""
    scaled = ScaledModes.of(problem, price)
    return replace(
        scaled,
        channel=scaled.channel.to(torch.complex128),
        error=scaled.error.double(),
        price=scaled.price.double(),
    )


def random_beams(problem, count, seed=0):
    """Return (count, G, N, A) beams of the allowed senders, every sending node at power 1."""
    shape = (count, *problem.nodes.shape, problem.channel.shape[2])
    generator = torch.Generator().manual_seed(seed)
    beam = torch.randn(shape, dtype=torch.complex128, generator=generator)
    return full_power(beam * torch.from_numpy(problem.nodes)[:, :, None])


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_gradient_against_autograd(error):
    """The gradient by hand is that of sum_i pi_i softmin_k R_ik, by automatic differentiation."""
    problem = drawn(error=error)
    scaled, sharpness = in_double(problem, np.array([1.0, 2.0, 0.5])), 7.0
    beam = random_beams(problem, 4).requires_grad_()
    _, _, signal, _, interference = listened(scaled, beam)
    rate = torch.log1p(signal.square() / interference)
    own = torch.where(scaled.users, rate, torch.inf)
    soft = -torch.logsumexp(-sharpness * own, dim=2) / sharpness
    (soft @ scaled.price).sum().backward()
    _, gradient = value_and_gradient(scaled, beam.detach(), sharpness)
    allowed = torch.where(scaled.nodes[:, :, None], beam.grad, 0)
    assert torch.allclose(gradient, allowed, atol=1e-12)
    assert gradient.abs().max() > 1e-3


def test_a_message_at_its_cap_asks_for_nothing():
    """Above the cap more power is worth nothing: no gradient, and the rate counts as the cap."""
    problem = replace(drawn(messages=1, strength=30.0), cap=0.01)
    scaled = in_double(problem, np.ones(1))
    beam = random_beams(problem, 3)
    value, gradient = value_and_gradient(scaled, beam, 10.0)
    assert torch.allclose(value, torch.full((3,), 0.01, dtype=torch.float64))
    assert not gradient.any()


def test_rates_by_hand():
    """Two users, one antenna: signal (3 - 0.3)^2 against 1 + (0.5 + 0.05)^2 and so on."""
    problem = MultiGroup(
        channel=np.array([[[3.0]], [[1.0]]]).astype(complex),
        error=np.array([[0.3], [0.1]]),
        power=np.ones(1),
        users=np.eye(2, dtype=bool),
        nodes=np.ones((2, 1), dtype=bool),
    )
    beam = np.array([[[0.8]], [[0.6]]]).astype(complex)[None]
    first = (0.8 * 2.7) ** 2 / (1 + (0.6 * 3.3) ** 2)
    second = (0.6 * 0.9) ** 2 / (1 + (0.8 * 1.1) ** 2)
    assert guaranteed_rates(problem, beam) == pytest.approx(np.log1p([[first, second]]))
    capped = replace(problem, cap=0.3)
    assert guaranteed_rates(capped, beam)[0] == pytest.approx([0.3, np.log1p(second)])


def test_zero_forcing_of_few_users_is_exact_at_high_snr():
    """With fewer users than antennas, user l hears nothing of the beam for user k."""
    problem = drawn(users=3, strength=1e4)
    scaled = in_double(problem, np.ones(3))
    everywhere = torch.ones_like(scaled.nodes)
    beam = regularised_zero_forcing(scaled.channel, scaled.users, everywhere)[0]
    heard = torch.einsum("lna,kna->lk", scaled.channel.conj(), beam)
    assert torch.allclose(heard, torch.eye(3, dtype=heard.dtype), atol=1e-6)


def test_wmmse_forms_agree():
    """Solving over the users or over the antennas is the same: by adding deaf users the other
    form is taken, and nothing may change."""
    problem = drawn(users=4)
    scaled = in_double(problem, np.ones(3))
    few = wmmse_steps(scaled, random_beams(problem, 2), 5)
    padded = replace(
        scaled,
        channel=torch.cat([scaled.channel, torch.zeros_like(scaled.channel)]),
        error=torch.cat([scaled.error, torch.zeros_like(scaled.error)]),
        users=torch.cat([scaled.users, torch.zeros_like(scaled.users)], dim=1),
    )
    many = wmmse_steps(padded, random_beams(problem, 2), 5)
    assert torch.allclose(few, many, atol=1e-9)


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_beams_keep_to_power_senders_and_judged_rates(error):
    """Per-node power, cooperating sets, and rates that the judge's formula confirms."""
    problem = drawn(1, error=error)
    price = np.array([1.0, 1.0, 3.0])
    generator = torch.Generator().manual_seed(0)
    beam, rate = price_modes(problem, price, generator=generator)
    power = (np.abs(beam) ** 2).sum(axis=(1, 3))
    assert (power <= problem.power * (1 + 1e-12)).all()
    assert not beam[:, ~problem.nodes].any()
    assert rate == pytest.approx(guaranteed_rates(problem, beam))
    again, _ = price_modes(problem, price, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(beam, again)


def test_one_user_alone_reaches_the_closed_form():
    """One message, one user: (sum_n sqrt(P_n) (norm(g_n) - eps_n))^2, over its senders."""
    problem = drawn(2, users=1, messages=1, error=0.1)
    reach = np.sqrt(problem.power) * (np.linalg.norm(problem.channel[0], axis=1) * 0.9)
    best = np.log1p((reach * problem.nodes[0]).sum() ** 2)
    _, rate = price_modes(problem, np.ones(1), generator=torch.Generator().manual_seed(0))
    assert rate.max() <= best * (1 + 1e-9)
    assert rate.max() >= best * (1 - 1e-4)


def test_orthogonal_users_share_the_air_at_no_loss():
    """Two users on orthogonal channels: with equal prices the optimum halves the power of each."""
    problem = MultiGroup(
        channel=np.array([[[10.0, 0.0]], [[0.0, 10.0]]]).astype(complex),
        error=np.zeros((2, 1)),
        power=np.ones(1),
        users=np.eye(2, dtype=bool),
        nodes=np.ones((2, 1), dtype=bool),
    )
    _, rate = price_modes(problem, np.ones(2), generator=torch.Generator().manual_seed(0))
    assert rate.sum(axis=1).max() == pytest.approx(2 * np.log1p(50.0), rel=1e-3)


def test_silent_messages_of_a_warm_start_come_back():
    """From a mode with one message only, the search still finds the mode with both."""
    problem = MultiGroup(
        channel=np.array([[[10.0, 0.0]], [[0.0, 10.0]]]).astype(complex),
        error=np.zeros((2, 1)),
        power=np.ones(1),
        users=np.eye(2, dtype=bool),
        nodes=np.ones((2, 1), dtype=bool),
    )
    warm = np.zeros((8, 2, 1, 2), dtype=complex)
    warm[:, 0, 0, 0] = 1.0
    generator = torch.Generator().manual_seed(0)
    _, rate = price_modes(problem, np.ones(2), warm, fresh=0, generator=generator)
    assert rate.sum(axis=1).max() == pytest.approx(2 * np.log1p(50.0), rel=1e-2)


def test_wrong_shapes_are_refused():
    """The message names the argument and both shapes."""
    problem = drawn()
    with pytest.raises(ValueError, match=r"power: shape is \(2,\), expected \(3,\)"):
        replace(problem, power=problem.power[:2])
    with pytest.raises(ValueError, match=r"users\[1\]: message 1 has no users"):
        replace(problem, users=problem.users & np.array([[True], [False], [True]]))
