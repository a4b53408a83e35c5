"""Projected Adam on the price of modes, many at once, with the gradient by hand.

The price sum_i pi_i min_k R_ik (rates as in `finecast.solvers.spatial.multigroup`) is smoothed
by a soft minimum over the users of a message, whose sharpness grows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from finecast.solvers.spatial.multigroup import TINY, ScaledModes, full_power, square

SHARPNESS = (6.0, 40.0)
"""First and last sharpness of the soft minimum over a message's users, 1/nat."""

STEP = (0.1, 0.01)
"""First and last step of Adam, in units of the root mean square entry of the beams."""

MOMENTS = (0.8, 0.9)
"""Memory of Adam's first and second moment."""


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

    The part of the gradient along a node's own beams would be undone by the rescaling to full
    power; it is taken out before the moments, which it would only disturb.
    """
    sharp, sharp_end = SHARPNESS
    step, step_end = STEP
    slow, slower = MOMENTS
    entries = beam.shape[1] * beam.shape[3]
    first, second = torch.zeros_like(beam), torch.zeros_like(beam.real)
    best, best_value = beam, torch.full((len(beam),), -torch.inf)
    for t in range(steps + 1):
        done = t / max(steps, 1)
        value, gradient = value_and_gradient(scaled, beam, sharp * (sharp_end / sharp) ** done)
        better = value > best_value
        best = torch.where(better[:, None, None, None], beam, best)
        best_value = torch.where(better, value, best_value)
        if t == steps:
            break
        radial = beam.real * gradient.real + beam.imag * gradient.imag
        gradient = gradient - radial.sum((1, 3), keepdim=True) * beam
        first = slow * first + (1 - slow) * gradient
        second = slower * second + (1 - slower) * square(gradient)
        scale = (second / (1 - slower ** (t + 1))).sqrt() + 1e-12
        move = first / (1 - slow ** (t + 1)) / scale
        size = step * (step_end / step) ** done / entries**0.5
        beam = full_power(beam + size * move)
    return best
