"""Echo state network: reservoirpy as oracle, the closed form of ridge regression, known series."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reservoirpy.datasets import mackey_glass
from reservoirpy.nodes import Reservoir as OracleReservoir
from reservoirpy.nodes import Ridge

from finecast.learners.augmentation.echo_state import (
    Reservoir,
    draw_reservoir,
    normal_equations,
    readout_features,
    reservoir_states,
    ridge_readout,
    spectral_radius_of,
)


def generator(seed):
    """Return a generator of its own for every draw."""
    return torch.Generator().manual_seed(seed)


def random(seed, *shape):
    """Return a standard Gaussian float64 tensor."""
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def oracle(reservoir):
    """Return reservoirpy's node with the same weights."""
    return OracleReservoir(
        W=reservoir.recurrent_weight.numpy(),
        Win=reservoir.input_weight.numpy(),
        bias=reservoir.bias.numpy(),
        lr=reservoir.leak,
    )


def test_one_step_by_hand():
    """One unit, two steps: x = a tanh(2 u + b), then (1 - a) x + a tanh(2 u + w x + b)."""
    weights = [torch.tensor(w, dtype=torch.float64) for w in ([[2.0]], [[0.5]], [0.1])]
    states = reservoir_states(Reservoir(*weights, leak=0.25), torch.ones(1, 2, 1).double())
    first = 0.25 * np.tanh(2.1)
    second = 0.75 * first + 0.25 * np.tanh(2.1 + 0.5 * first)
    assert states.flatten().tolist() == pytest.approx([first, second], rel=1e-14)


@pytest.mark.parametrize("leak", [1.0, 0.3])
def test_states_and_readout_equal_reservoirpy(leak):
    """Three sequences through the same weights: states, readout and predictions to 1e-10."""
    reservoir = draw_reservoir(generator(0), units=60, inputs=3, leak=leak, bias_scaling=0.5)
    inputs, targets = random(1, 3, 80, 3), random(2, 3, 80, 2)
    states = reservoir_states(reservoir, inputs)
    expected = [oracle(reservoir).run(u) for u in inputs.numpy()]
    assert np.abs(states.numpy() - expected).max() < 1e-10

    features = readout_features(states, inputs)
    readout = ridge_readout(normal_equations(features, targets, wash_out=10), 2, ridge=1e-2)
    ridge = Ridge(ridge=1e-2)
    both = [np.concatenate([x, u], axis=1) for x, u in zip(expected, inputs.numpy(), strict=True)]
    ridge.fit([z[10:] for z in both], [y[10:] for y in targets.numpy()])
    assert np.abs(readout[1:].numpy() - ridge.Wout).max() < 1e-10
    assert np.abs(readout[0].numpy() - ridge.bias).max() < 1e-10
    predicted = (features @ readout).numpy()
    assert np.abs(predicted - [ridge.run(z) for z in both]).max() < 1e-10


def test_spectral_radius_density_and_scaling_are_as_set():
    """A drawn reservoir has the radius asked for, about the density, and bounded input weights."""
    reservoir = draw_reservoir(
        generator(3), units=200, inputs=4, spectral_radius=0.8, density=0.05, input_scaling=0.3
    )
    assert spectral_radius_of(reservoir.recurrent_weight) == pytest.approx(0.8, rel=1e-9)
    share = float((reservoir.recurrent_weight != 0).double().mean())
    assert share == pytest.approx(0.05, abs=5 * np.sqrt(0.05 * 0.95) / 200)
    assert 0.25 < float(reservoir.input_weight.abs().max()) <= 0.3
    assert 0.05 < float(reservoir.bias.abs().max()) <= 0.1


def test_same_seed_same_reservoir():
    """The weights come from the generator and nothing else."""
    first, same, other = (draw_reservoir(generator(s), units=20, inputs=2) for s in (5, 5, 6))
    assert torch.equal(first.recurrent_weight, same.recurrent_weight)
    assert torch.equal(first.input_weight, same.input_weight)
    assert not torch.equal(first.recurrent_weight, other.recurrent_weight)


def test_echo_state_property():
    """A reservoir of small radius forgets its start, one of radius 3 does not.

    Without input and bias the step is odd, so that opposite starts stay opposite: they come
    together only at 0, which repels when the radius is above 1.
    """
    start, silence = torch.ones(1, 50, dtype=torch.float64), torch.zeros(1, 300, 2).double()
    gap = {}
    for radius in (0.5, 3.0):
        reservoir = draw_reservoir(
            generator(8), units=50, inputs=2, spectral_radius=radius, bias_scaling=0
        )
        ends = [reservoir_states(reservoir, silence, side * start)[:, -1] for side in (1, -1)]
        gap[radius] = float((ends[0] - ends[1]).abs().max())
        if radius < 1:
            driven = [
                reservoir_states(reservoir, random(7, 1, 300, 2), side * start)[:, -1]
                for side in (1, -1)
            ]
            assert float((driven[0] - driven[1]).abs().max()) < 1e-12
    assert gap[0.5] < 1e-12
    assert gap[3.0] > 0.1


def test_states_continue_where_they_stopped():
    """Two calls, the second from the last state of the first, equal one call to the bit."""
    reservoir = draw_reservoir(generator(9), units=20, inputs=2, leak=0.5)
    inputs = random(10, 4, 30, 2)
    whole = reservoir_states(reservoir, inputs)
    first = reservoir_states(reservoir, inputs[:, :12])
    second = reservoir_states(reservoir, inputs[:, 12:], first[:, -1])
    assert torch.allclose(whole, torch.cat([first, second], dim=1), rtol=0, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    ridge=st.floats(1e-3, 10),
    wash_out=st.integers(0, 4),
    outputs=st.integers(1, 3),
)
def test_ridge_is_the_least_squares_solution_of_the_stacked_system(seed, ridge, wash_out, outputs):
    """An independent formula: least squares with sqrt(ridge) I stacked under the features."""
    features = readout_features(random(seed, 3, 9, 4))
    targets = random(seed + 1, 3, 9, outputs)
    readout = ridge_readout(normal_equations(features, targets, wash_out=wash_out), outputs, ridge)
    z = features[:, wash_out:].reshape(-1, 5).numpy()
    y = targets[:, wash_out:].reshape(-1, outputs).numpy()
    penalty = np.sqrt(ridge) * np.eye(5)[1:]
    expected = np.linalg.lstsq(
        np.concatenate([z, penalty]), np.concatenate([y, np.zeros((4, outputs))]), rcond=None
    )[0]
    assert readout.numpy() == pytest.approx(expected, abs=1e-9)


def test_merged_sums_equal_one_pass():
    """Sums over batches add up to the sums over all; the readouts agree."""
    features, targets = readout_features(random(11, 12, 15, 6)), random(12, 12, 15, 2)
    whole = normal_equations(features, targets, wash_out=3)
    parts = sum(
        normal_equations(features[i : i + 4], targets[i : i + 4], wash_out=3) for i in (0, 4, 8)
    )
    assert torch.allclose(parts, whole, rtol=1e-13, atol=1e-12)
    assert torch.allclose(ridge_readout(parts, 2), ridge_readout(whole, 2), rtol=1e-10)


def test_forgetting_is_weighting():
    """gamma S_old + S_new is the normal equations with weight gamma on what is old."""
    features, targets = readout_features(random(13, 2, 10, 3)), random(14, 2, 10, 1)
    old = normal_equations(features[:1], targets[:1])
    new = normal_equations(features[1:], targets[1:])
    weight = torch.tensor([[0.25], [1.0]], dtype=torch.float64).expand(2, 10)
    weighted = normal_equations(features, targets, weight=weight)
    assert torch.allclose(0.25 * old + new, weighted, atol=1e-12)


def root_error(features, targets, readout):
    """Return the root of the squared error over the variance (NRMSE): 0 exact, 1 as the mean."""
    error = (targets - features @ readout).square().mean()
    return float((error / targets.var(correction=0)).sqrt())


def narma10(seed, steps):
    """Return input and output of the tenth-order system of Atiya and Parlos (2000), equation 86."""
    u = 0.5 * np.random.default_rng(seed).random(steps)
    y = np.zeros(steps)
    for t in range(9, steps - 1):
        y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * y[t - 9 : t + 1].sum() + 1.5 * u[t - 9] * u[t] + 0.1
    return u, y


def test_narma10_error_is_in_the_published_range():
    """NRMSE on fresh steps with 100 units, mean of three draws; the input alone does far worse.

    Standard reservoirs of about 100 units are published at a normalised mean square error of about
    0.1, i.e. an NRMSE of about 0.3 (such as A. Rodan and P. Tino, "Minimum complexity echo state
    network", IEEE Trans. Neural Networks 22 (2011)).
    """
    errors = [narma10_errors(seed) for seed in (17, 18, 19)]
    network, input_alone = np.mean(errors, axis=0)
    assert 0.25 < network < 0.4
    assert input_alone > 0.8


def narma10_errors(seed):
    """Return the held-out NRMSE of a reservoir, and of a readout of the input alone."""
    u, y = (torch.as_tensor(series)[None, :, None] for series in narma10(seed, 4200))
    reservoir = draw_reservoir(
        generator(seed + 1), units=100, inputs=1, spectral_radius=0.95, input_scaling=0.05
    )
    target, split, errors = y[:, 1:], 2200, []
    for states in (reservoir_states(reservoir, u), u):
        features = readout_features(states)[:, :-1]
        fit = normal_equations(features[:, :split], target[:, :split], wash_out=200)
        readout = ridge_readout(fit, 1, ridge=1e-9)
        errors.append(root_error(features[:, split:], target[:, split:], readout))
    return errors


def test_mackey_glass_one_step_ahead():
    """The chaotic series that reservoirs are known for: one step ahead to better than 1e-3."""
    series = torch.as_tensor(mackey_glass(2500).copy())[None] - 0.9
    reservoir = draw_reservoir(generator(19), units=100, inputs=1, spectral_radius=0.9, leak=0.6)
    features = readout_features(reservoir_states(reservoir, series[:, :-1]))
    readout = ridge_readout(
        normal_equations(features[:, :1500], series[:, 1:1501], wash_out=100), 1, ridge=1e-8
    )
    assert root_error(features[:, 1500:], series[:, 1501:], readout) < 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"units": 0}, "units: 0 is not allowed"),
        ({"spectral_radius": -1.0}, "spectral_radius: -1.0"),
        ({"density": 0.0}, "density: 0.0"),
        ({"leak": 0.0}, "leak: 0.0"),
        ({"units": 3, "density": 1e-6}, "without a cycle"),
    ],
)
def test_bad_numbers_are_named(wrong, message):
    """One line: which number, its value, what is allowed."""
    with pytest.raises(ValueError, match=message):
        draw_reservoir(generator(0), **{"units": 10, "inputs": 1, **wrong})


def test_bad_sums_are_refused():
    """Wrong shapes, a wash-out that leaves nothing, dependent features without a ridge."""
    features = readout_features(random(20, 2, 5, 2))
    with pytest.raises(ValueError, match="wash_out: 5"):
        normal_equations(features, features, wash_out=5)
    with pytest.raises(ValueError, match="targets: shape"):
        normal_equations(features, features[:, 1:])
    twice = torch.cat([features, features[..., 1:]], dim=-1)
    with pytest.raises(ValueError, match=r"ridge: 0\.0"):
        ridge_readout(normal_equations(twice, features[..., 1:2]), 1, ridge=0.0)
    with pytest.raises(ValueError, match="float64"):
        Reservoir(torch.ones(2, 1), torch.eye(2), torch.ones(2))
