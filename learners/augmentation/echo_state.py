"""Leaky echo state network: a fixed random reservoir and a readout by ridge regression.

    x[t] = (1 - a) x[t-1] + a tanh(W_in u[t] + W x[t-1] + b),        x[-1] = 0
    y[t] = C^T z[t],       z[t] = (1, x[t]) or (1, x[t], u[t])
    C = (sum z z^T + ridge diag(0, 1, ..., 1))^-1 sum z y^T

Only C is learnt, in closed form, from two sums over the samples. The sums are kept as one matrix
S = sum (z, y) (z, y)^T, the normal equations. Those of two sets of samples add up to those of their
union, and gamma S_old + S_new forgets. So a readout is refitted at the cost of one Cholesky
factorisation, whatever the number of samples.

All sequences of a batch go through the reservoir at once. Most elements of the recurrent matrix are
0, but it is stored in full, because a dense product is faster at the few hundred units of this
package.

H. Jaeger, "The echo state approach to analysing and training recurrent neural networks", GMD
report 148 (2001), section 4; leaky units and ridge readout: M. Lukosevicius, "A practical guide to
applying echo state networks" (2012), equations 2, 3 and 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.problem.arrays import checked_number


@dataclass(frozen=True, eq=False)
class Reservoir:
    """Weights of a reservoir of H units with I inputs. They are float64 and never trained.

    Parameters
    ----------
    input_weight
        (H, I), W_in.
    recurrent_weight
        (H, H), W.
    bias
        (H,), b.
    leak
        a in (0, 1]; 1 for units without memory of their own.

    Raises
    ------
    ValueError
        A shape is wrong, a weight is not a finite float64, or the leak is out of range.
    """

    input_weight: Tensor
    recurrent_weight: Tensor
    bias: Tensor
    leak: float = 1.0

    def __post_init__(self) -> None:
        if self.bias.ndim != 1 or not len(self.bias):
            raise ValueError(f"bias: shape is {tuple(self.bias.shape)}, expected (units,)")
        units = len(self.bias)
        if self.input_weight.ndim != 2 or self.input_weight.shape[0] != units:
            shape = tuple(self.input_weight.shape)
            raise ValueError(f"input_weight: shape is {shape}, expected ({units}, inputs)")
        if self.recurrent_weight.shape != (units, units):
            shape = tuple(self.recurrent_weight.shape)
            raise ValueError(f"recurrent_weight: shape is {shape}, expected ({units}, {units})")
        for name in ("input_weight", "recurrent_weight", "bias"):
            weight = getattr(self, name)
            if weight.dtype != torch.float64:
                raise ValueError(f"{name}: elements are {weight.dtype}, expected torch.float64")
            if not weight.isfinite().all():
                raise ValueError(f"{name}: holds a number that is not finite")
        checked_number("leak", self.leak, above=0, high=1)

    @property
    def units(self) -> int:
        """H, the number of units."""
        return len(self.bias)

    @property
    def inputs(self) -> int:
        """I, the number of inputs."""
        return int(self.input_weight.shape[1])


def draw_reservoir(
    generator: torch.Generator,
    *,
    units: int,
    inputs: int,
    spectral_radius: float = 0.9,
    density: float = 0.1,
    input_scaling: float = 1.0,
    bias_scaling: float = 0.1,
    leak: float = 1.0,
) -> Reservoir:
    """Draw a reservoir with Gaussian W of given density and spectral radius, uniform W_in and b.

    Parameters
    ----------
    generator
        Source of the weights. It is on the CPU, so that a seed means the same on every device.
    units, inputs
        H and I, each at least 1.
    spectral_radius
        Largest modulus of an eigenvalue of W, at least 0. The state forgets its start if the
        largest singular value is below 1. In practice it does so if the spectral radius is.
    density
        Share of the elements of W that are not 0, in (0, 1].
    input_scaling, bias_scaling
        W_in and b are uniform in [-scaling, scaling].
    leak
        As in `Reservoir`.

    Raises
    ------
    ValueError
        A number is out of its range, or W has no eigenvalue but 0, which happens with few units
        and a low density.
    """
    for name, count in (("units", units), ("inputs", inputs)):
        if count < 1:
            raise ValueError(f"{name}: {count} is not allowed, must be >= 1")
    spectral_radius = checked_number("spectral_radius", spectral_radius, low=0)
    density = checked_number("density", density, above=0, high=1)
    input_scaling = checked_number("input_scaling", input_scaling, low=0)
    bias_scaling = checked_number("bias_scaling", bias_scaling, low=0)

    weight = torch.randn(units, units, generator=generator, dtype=torch.float64)
    present = torch.rand(units, units, generator=generator, dtype=torch.float64) < density
    weight = weight * present
    if spectral_radius > 0:
        radius = spectral_radius_of(weight)
        # A nilpotent matrix has radius 0 exactly, but its computed eigenvalues do not.
        if radius < 1e-3 * float(torch.linalg.matrix_norm(weight)) or radius == 0:
            raise ValueError(
                f"density: {density} leaves {units} units without a cycle, must be higher"
            )
        weight = weight * (spectral_radius / radius)
    else:
        weight = torch.zeros_like(weight)
    uniform = 2 * torch.rand(units, inputs + 1, generator=generator, dtype=torch.float64) - 1
    return Reservoir(input_scaling * uniform[:, 1:], weight, bias_scaling * uniform[:, 0], leak)


def spectral_radius_of(weight: Tensor) -> float:
    """Return the largest modulus of an eigenvalue of a square matrix."""
    return float(torch.linalg.eigvals(weight).abs().max())


def reservoir_states(reservoir: Reservoir, inputs: Tensor, start: Tensor | None = None) -> Tensor:
    """Return the states x, (B, T, H), for B input sequences.

    Parameters
    ----------
    reservoir
        The weights.
    inputs
        (B, T, I), u.
    start
        (B, H) or (H,), x[-1]; default 0. The last state of a call continues it in the next call.
    """
    leak, recurrent = reservoir.leak, reservoir.recurrent_weight.T
    batch, steps = inputs.shape[:2]
    drive = inputs @ reservoir.input_weight.T + reservoir.bias
    state = drive.new_zeros(batch, reservoir.units) if start is None else start
    states = torch.empty_like(drive)
    for t in range(steps):
        state = (1 - leak) * state + leak * torch.tanh(drive[:, t] + state @ recurrent)
        states[:, t] = state
    return states


def readout_features(states: Tensor, inputs: Tensor | None = None) -> Tensor:
    """Return z, (..., F): 1, the states (..., H), and the inputs (..., I) if there are any."""
    parts = [torch.ones_like(states[..., :1]), states]
    return torch.cat(parts if inputs is None else [*parts, inputs], dim=-1)


def normal_equations(
    features: Tensor, targets: Tensor, *, wash_out: int = 0, weight: Tensor | None = None
) -> Tensor:
    """Return S (F + O, F + O), the sum of weight (z, y) (z, y)^T over sequences and steps.

    S of all samples is the sum of S of its parts. gamma S_old + S_new, gamma in [0, 1], gives
    samples that are l additions old the weight gamma^l.

    Parameters
    ----------
    features
        (B, T, F), z.
    targets
        (B, T, O), y.
    wash_out
        Steps at the beginning of every sequence that are left out, because the state still
        remembers that it started at 0.
    weight
        (B, T), at least 0; default 1. A sample of weight 0 is left out.

    Raises
    ------
    ValueError
        The shapes disagree, or the wash-out leaves nothing.
    """
    if features.ndim != 3 or targets.shape[:-1] != features.shape[:-1]:
        raise ValueError(
            f"targets: shape is {tuple(targets.shape)}, expected (sequences, steps, outputs) of "
            f"features of shape {tuple(features.shape)}"
        )
    if not 0 <= wash_out < features.shape[1]:
        raise ValueError(
            f"wash_out: {wash_out} is not allowed, must be >= 0 and < {features.shape[1]} steps"
        )
    both = torch.cat([features, targets], dim=-1)[:, wash_out:].flatten(0, 1)
    if weight is None:
        return both.T @ both
    return both.T @ (both * weight[:, wash_out:].flatten()[:, None])


def ridge_readout(sums: Tensor, outputs: int, ridge: float = 1e-6) -> Tensor:
    """Return C (F, O), the minimiser of sum |y - C^T z|^2 + ridge |C without its first row|^2.

    The first feature is the constant 1. Its row has no penalty, so that the mean is not drawn to 0.

    Parameters
    ----------
    sums
        (F + O, F + O), the normal equations.
    outputs
        O.
    ridge
        Penalty, at least 0, in units of the squared features. Its effect depends on its ratio to
        the number of samples.

    Raises
    ------
    ValueError
        The ridge is negative, or too small for the features to determine the readout.
    """
    ridge = checked_number("ridge", ridge, low=0)
    features = len(sums) - outputs
    gram, moment = sums[:features, :features], sums[:features, features:]
    penalty = torch.full((features,), ridge, dtype=sums.dtype, device=sums.device)
    penalty[0] = 0
    factor, failed = torch.linalg.cholesky_ex(gram + torch.diag(penalty))
    # Beyond this condition a Cholesky solution has no correct digit left.
    pivot = factor.diagonal()
    if failed or pivot.min() ** 2 <= 1e-15 * pivot.max() ** 2:
        raise ValueError(f"ridge: {ridge} is not allowed, must be higher: features are dependent")
    return torch.cholesky_solve(moment, factor)
