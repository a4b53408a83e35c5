"""Projected Adam on the price of modes, many at once, with the gradient by hand.

The price is sum_i pi_i min_k R_ik, with the rates of `finecast.solvers.spatial.multigroup`. A soft
minimum over the users of a message smooths it. Its sharpness grows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from finecast.solvers.spatial.multigroup import TINY, ScaledModes, full_power, square

FIRST_SHARPNESS = 6.0
"""Sharpness of the soft minimum over a message's users at the first step, 1/nat."""

LAST_SHARPNESS = 40.0
"""The same at the last step, 1/nat; geometric between."""

FIRST_STEP = 0.1
"""First step of Adam, in units of the root mean square entry of the beams."""

LAST_STEP = 0.01
"""Last step of Adam, in the same unit; geometric between."""

MEAN_MEMORY = 0.8
"""Memory of Adam's mean of the gradients, per step."""

SQUARE_MEMORY = 0.9
"""Memory of Adam's mean of the squared gradients, per step."""


def listened(scaled: ScaledModes, beam: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return y, |y|, max(0, |y| - s), |y| + s and I, each (S, G, K)."""
    users = len(scaled.channel)
    amplitude = beam.flatten(2) @ scaled.channel.reshape(users, -1).conj().T
    size = amplitude.abs()
    signal = disturbance = size
    if scaled.robust:
        spread = square(beam).sum(3).sqrt() @ scaled.error.T
        signal, disturbance = (size - spread).clamp(min=0), size + spread
    heard = disturbance.square()
    # Own power is taken out of the sum; clamped, since the difference of large numbers is coarse.
    interference = 1 + (heard.sum(1, keepdim=True) - heard).clamp(min=0)
    return amplitude, size, signal, disturbance, interference


def soft_weights(scaled: ScaledModes, rate: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """Return the true minimum rates (S, G) and the weights (S, G, K) of the soft minimum.

    Weights are pi_i softmax_k(-sharpness R_ik), and 0 for a message at its cap.
    """
    own = torch.where(scaled.users, rate, torch.inf)
    least = own.amin(2)
    weight = torch.softmax(-sharpness * (own - least[..., None]), dim=2)
    live = scaled.price * (least < scaled.cap)
    return least.clamp(max=scaled.cap), live[..., None] * weight


def value_and_gradient(
    scaled: ScaledModes, beam: Tensor, sharpness: float
) -> tuple[Tensor, Tensor]:
    """Return the price of the modes (S,) and the ascent direction (S, G, N, A) of the soft price.

    With c_ik the weights, A = c / (I + a) and B_ik = c a / (I (I + a)),

        dR/d|y| = 2 A (|y| - s)_+ - 2 C (|y| + s),   dR/ds = -2 A (|y| - s)_+ - 2 C (|y| + s),
        C_lk = sum_{i != l} B_ik,   d|y_ik| = Re(e^{j arg y} g_k)^H dw_i,
        d norm(w_in) = Re(w_in / norm(w_in))^H dw_in.
    """
    amplitude, size, signal, disturbance, interference = listened(scaled, beam)
    power = signal.square()
    total = interference + power
    rate = torch.log(total / interference)
    least, weight = soft_weights(scaled, rate, sharpness)
    gain = 2 * weight / total * signal
    blame = weight * power / (interference * total)
    loss = 2 * (blame.sum(1, keepdim=True) - blame) * disturbance
    direction = amplitude / size.clamp(min=TINY)
    users = len(scaled.channel)
    upward = ((gain - loss) * direction) @ scaled.channel.reshape(users, -1)
    gradient = upward.reshape(beam.shape)
    if scaled.robust:
        per_norm = -((gain + loss) @ scaled.error)[..., None]
        gradient = (
            gradient + per_norm * beam * square(beam).sum(3, keepdim=True).clamp(TINY).rsqrt()
        )
    return least @ scaled.price, gradient * scaled.nodes[:, :, None]


def ascend(scaled: ScaledModes, beam: Tensor, steps: int) -> Tensor:
    """Return the best iterates of projected Adam from beams (S, G, N, A) at full power.

    The rescaling to full power would undo the part of the gradient along a node's own beams. This
    part is taken out before the moments, which it would only disturb.
    """
    entries = beam.shape[1] * beam.shape[3]
    mean, mean_square = torch.zeros_like(beam), torch.zeros_like(beam.real)
    best, best_value = beam, torch.full((len(beam),), -torch.inf)
    for t in range(steps + 1):
        done = t / max(steps, 1)
        sharpness = FIRST_SHARPNESS * (LAST_SHARPNESS / FIRST_SHARPNESS) ** done
        value, gradient = value_and_gradient(scaled, beam, sharpness)
        better = value > best_value
        best = torch.where(better[:, None, None, None], beam, best)
        best_value = torch.where(better, value, best_value)
        if t == steps:
            break
        radial = beam.real * gradient.real + beam.imag * gradient.imag
        gradient = gradient - radial.sum((1, 3), keepdim=True) * beam
        mean = MEAN_MEMORY * mean + (1 - MEAN_MEMORY) * gradient
        mean_square = SQUARE_MEMORY * mean_square + (1 - SQUARE_MEMORY) * square(gradient)
        scale = (mean_square / (1 - SQUARE_MEMORY ** (t + 1))).sqrt() + 1e-12
        move = mean / (1 - MEAN_MEMORY ** (t + 1)) / scale
        size = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** done / entries**0.5
        beam = full_power(beam + size * move)
    return best
