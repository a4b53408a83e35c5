"""Pricing of modes: beams of several messages on the air at once, many starts in one batch.

With the power limits absorbed in the channels (norm over all messages of w_n at most 1), amplitude
y_ik = g_k^H w_i and spread s_ik = sum_n eps_kn norm(w_in), user k hears message i at (nats)

    R_ik = log(1 + a_ik / I_ik),   a_ik = max(0, |y_ik| - s_ik)^2,
    I_ik = 1 + sum_{l != i} b_lk,  b_lk = (|y_lk| + s_lk)^2,

and the price of a mode is sum_i pi_i min(cap, min_{k in U_i} R_ik) (docs/formulation.md section 3).
A few WMMSE steps (S. S. Christensen et al., IEEE Trans. Wireless Commun. 7(12), 2008; Q. Shi et
al., IEEE Trans. Signal Process. 59(9), 2011) sort out which messages share the air; projected Adam
on the soft minimum then finishes. The search is in complex64; its beams are judged in complex128.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from problem.arrays import BoolArray, ComplexArray, FloatArray
from problem.sinr import worst_case_sinr
from solvers.beamforming.group_wmmse import regularised_zero_forcing, wmmse_steps

WMMSE_STEPS = 12
SHARPNESS = (6.0, 40.0)
"""First and last sharpness of the soft minimum over a message's users, 1/nat."""

STEP = (0.1, 0.01)
"""First and last step of Adam, in units of the root mean square entry of the beams."""

MOMENTS = (0.8, 0.9)
"""Memory of Adam's first and second moment."""

REVIVED = (0.1, 0.2)
"""Amplitude at which a silent message of a warm start comes back, share of a full beam."""

SUBSET = (0.1, 0.8)
"""Share of the messages that a random start, unless it is one in three, has on the air; in warm
starts a random share of the silent messages comes back. With few senders a message, the search
seldom finds by itself which messages can share the air."""

AUDIBLE = 1e-3
"""A message slower than this share of the fastest is taken off the air of its mode."""

TINY = 1e-30


@dataclass(frozen=True, eq=False)
class MultiGroup:
    """Messages that may share the air.

    Parameters
    ----------
    channel
        (K, N, A), normalised by the noise amplitude.
    error
        (K, N), radii of the error balls, normalised alike; zeros for nominal rates.
    power
        (N,) W.
    users
        (G, K) bool, who listens to each message; at least one.
    nodes
        (G, N) bool, who may send it.
    cap
        Largest rate of a message, nats; may be infinite.
    """

    channel: ComplexArray
    error: FloatArray
    power: FloatArray
    users: BoolArray
    nodes: BoolArray
    cap: float = np.inf

    def __post_init__(self) -> None:
        users, nodes, _ = self.channel.shape
        messages = len(self.users)
        for name, shape in (
            ("error", (users, nodes)),
            ("power", (nodes,)),
            ("users", (messages, users)),
            ("nodes", (messages, nodes)),
        ):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: shape is {getattr(self, name).shape}, expected {shape}")
        deaf = np.flatnonzero(~self.users.any(axis=1))
        if len(deaf):
            raise ValueError(f"users[{deaf[0]}]: message {deaf[0]} has no users")


def guaranteed_rates(problem: MultiGroup, beam: ComplexArray) -> FloatArray:
    """Return (S, G) nats, the guaranteed rates of the messages in each of S modes.

    Parameters
    ----------
    problem
        The messages.
    beam
        (S, G, N, A), square root of watt.
    """
    modes, messages = beam.shape[:2]
    together = np.ones((messages, messages), dtype=bool)
    rates = np.zeros((modes, messages))
    for s in range(modes):
        sinr = worst_case_sinr(problem.channel, problem.error, beam[s], together)
        rates[s] = np.log1p(np.where(problem.users.T, sinr, np.inf).min(axis=0))
    return np.minimum(rates, problem.cap)


def price_modes(
    problem: MultiGroup,
    price: FloatArray,
    warm: ComplexArray | None = None,
    *,
    fresh: int = 6,
    steps: int = 50,
    wmmse: int = WMMSE_STEPS,
    generator: torch.Generator,
) -> tuple[ComplexArray, FloatArray]:
    """Search for modes of large price.

    Parameters
    ----------
    problem
        The messages.
    price
        (G,) pi, worth of a nat of each message, >= 0.
    warm
        (S, G, N, A) beams to start from besides, square root of watt; silent messages come back.
    fresh
        Number of random starts.
    steps
        Steps of Adam.
    wmmse
        Steps of WMMSE before.
    generator
        Source of the random phases.

    Returns
    -------
    beam
        (fresh + S, G, N, A) complex128, within the power limits, square root of watt.
    rate
        (fresh + S, G) nats, guaranteed.
    """
    scaled = Scaled.of(problem, price)
    zero_forcing = regularised_zero_forcing(scaled.channel, scaled.users, scaled.nodes)
    starts = [fresh_starts(scaled, zero_forcing, fresh, generator)]
    if warm is not None and len(warm):
        starts.append(revived(scaled, zero_forcing, warm, problem.power, generator))
    beam = torch.cat(starts)
    beam = wmmse_steps(scaled, full_power(beam), wmmse)
    beam = ascend(scaled, full_power(beam), steps)
    found = beam.to(torch.complex128).numpy() * np.sqrt(problem.power)[:, None]
    found = within_power(found, problem.power)
    rate = guaranteed_rates(problem, found)
    quiet = rate < AUDIBLE * rate.max(axis=1, keepdims=True)
    found[quiet] = 0.0
    return found, guaranteed_rates(problem, found)


@dataclass(frozen=True, eq=False)
class Scaled:
    """Single-precision tensors with the power limits absorbed in the channels.

    Attributes
    ----------
    channel, error
        (K, N, A) complex64 and (K, N) float32.
    users, nodes
        (G, K) and (G, N) bool.
    price
        (G,) float32, summing to 1.
    cap
        Nats.
    robust
        Some error is not 0.
    """

    channel: Tensor
    error: Tensor
    users: Tensor
    nodes: Tensor
    price: Tensor
    cap: float
    robust: bool

    @classmethod
    def of(cls, problem: MultiGroup, price: FloatArray) -> Scaled:
        """Scale a problem."""
        amplitude = np.sqrt(problem.power)
        return cls(
            torch.from_numpy((problem.channel * amplitude[:, None]).astype(np.complex64)),
            torch.from_numpy((problem.error * amplitude).astype(np.float32)),
            torch.from_numpy(problem.users),
            torch.from_numpy(problem.nodes),
            torch.from_numpy((price / price.sum()).astype(np.float32)),
            problem.cap,
            bool((problem.error > 0).any()),
        )


def full_power(beam: Tensor) -> Tensor:
    """Return the beams (S, G, N, A) with every node that sends at power 1."""
    power = square(beam).sum((1, 3), keepdim=True)
    return beam * power.clamp(min=TINY).rsqrt()


def square(beam: Tensor) -> Tensor:
    """Return |beam|^2 without the square root that `abs` takes."""
    return beam.real.square() + beam.imag.square()


def within_power(beam: ComplexArray, power: FloatArray) -> ComplexArray:
    """Return the beams (S, G, N, A) scaled to the full power of every node that sends."""
    sent = np.sqrt((beam.real**2 + beam.imag**2).sum(axis=(1, 3), keepdims=True))
    limit = np.sqrt(power)[:, None]
    scaled: ComplexArray = beam * (limit / np.where(sent > 0, sent, 1.0))
    return scaled


def fresh_starts(
    scaled: Scaled, zero_forcing: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Return (count, G, N, A): half maximum ratio, half zero forcing, users at random phases.

    One in three has all messages on the air, the others a random subset.
    """
    messages = len(scaled.users)
    low, high = SUBSET
    matched = scaled.channel * scaled.nodes[:, None, :, None]  # (G, K, N, A)
    beams = []
    for s in range(count):
        towards = zero_forcing if s % 2 else matched
        phase = torch.rand(scaled.users.shape, generator=generator) * (2 * torch.pi)
        beam = combined(scaled, towards, phase)
        if s % 3:
            share = low + (high - low) * torch.rand((), generator=generator)
            on_air = torch.rand(messages, generator=generator) < share
            on_air[torch.randint(messages, (), generator=generator)] = True
            beam = beam * on_air[:, None, None]
        beams.append(beam)
    if not beams:
        return matched.new_zeros((0, *matched.shape[:1], *matched.shape[2:]))
    return torch.stack(beams)


def combined(scaled: Scaled, towards: Tensor, phase: Tensor) -> Tensor:
    """Return (G, N, A) of norm 1: sum over a message's users of e^{j phase} times unit beams."""
    unit = towards / torch.linalg.vector_norm(towards, dim=(2, 3), keepdim=True).clamp(min=TINY)
    turn = torch.polar(scaled.users.float(), phase)
    beam = (turn[:, :, None, None] * unit).sum(1)
    scaled_beam: Tensor = beam / torch.linalg.vector_norm(beam, dim=(1, 2), keepdim=True).clamp(
        min=TINY
    )
    return scaled_beam


def revived(
    scaled: Scaled,
    zero_forcing: Tensor,
    warm: ComplexArray,
    power: FloatArray,
    generator: torch.Generator,
) -> Tensor:
    """Return warm starts in the scaled unit, some silent messages at a part of a full beam."""
    amplitude = np.sqrt(np.where(power > 0, power, np.inf))
    beam = torch.from_numpy((warm / amplitude[:, None]).astype(np.complex64))
    low, high = REVIVED
    again = []
    for _ in range(len(beam)):
        phase = torch.rand(scaled.users.shape, generator=generator) * (2 * torch.pi)
        part = low + (high - low) * torch.rand((), generator=generator)
        back = torch.rand(len(phase), generator=generator) < torch.rand((), generator=generator)
        again.append(part * combined(scaled, zero_forcing, phase) * back[:, None, None])
    silent = beam.abs().sum((2, 3), keepdim=True) == 0
    return torch.where(silent, torch.stack(again), beam)


def listened(scaled: Scaled, beam: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
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


def soft_weights(scaled: Scaled, rate: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """Return the true minimum rates (S, G) and the weights (S, G, K) of the soft minimum.

    Weights are pi_i softmax_k(-sharpness R_ik), and 0 for a message at its cap.
    """
    own = torch.where(scaled.users, rate, torch.inf)
    least = own.amin(2)
    weight = torch.softmax(-sharpness * (own - least[..., None]), dim=2)
    live = scaled.price * (least < scaled.cap)
    return least.clamp(max=scaled.cap), live[..., None] * weight


def value_and_gradient(scaled: Scaled, beam: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
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


def ascend(scaled: Scaled, beam: Tensor, steps: int) -> Tensor:
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
