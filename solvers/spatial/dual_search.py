"""Search for good dual points of the bound on the broadcast time of spatial delivery.

Any point proves a bound (`finecast.solvers.spatial.certificate`), so that nothing here has to be
exact. Adam raises the logarithm of the bound, with the boxes of all slots side by side. Then the
boxes that decide the bound are split where that helps most, and Adam goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.spatial.certificate import Downlink, ModeDual, floors, strongest


@dataclass(frozen=True)
class _Stage:
    """Options of Adam.

    `learning_rate`; `soft` and `sharp`, the first and last beta of the soft maximum
    (1/beta) log sum exp(beta lambda) of values up to about 1.
    """

    learning_rate: float
    soft: float
    sharp: float


FIRST = _Stage(learning_rate=0.1, soft=30.0, sharp=3000.0)
"""The search with one box a slot."""

AFTER_SPLITS = _Stage(learning_rate=0.05, soft=200.0, sharp=2000.0)
"""The search from a good point, after some boxes were split."""

REFRESH = 10
"""Every so many steps all messages are looked at."""

ACTIVE = 6
"""Messages looked at in the other steps: those of the largest eigenvalues."""

ROUND_STEPS = 100
"""Adam steps after a round of splits."""

SPLITS = 4
"""Most boxes of a slot that a round splits."""

NEAR = 0.97
"""A box is split if its cost is at least this share of the largest of its slot."""

ROUNDS = 10
"""Rounds of splits, at most."""

HELPS = 1e-3
"""A split must promise this share of what the box costs."""

STALLS = 3e-3
"""Two rounds of splits must raise the mean logarithm of the bounds by this."""

LEAST_LOG_WEIGHT = -40.0
"""Least logarithm of a user's weight."""

LEAST_LOG_PRICE = -25.0
"""Least logarithm of a node's share mu of the prices."""


@dataclass(frozen=True, eq=False)
class _Slots:
    """T slots, zeros in the missing places.

    `rows` (T, K or 2K, N, A) are the weakest channels, followed by the estimates if there are
    errors; `nats`, `most`, `ceiling`, `ratio` (T, K); `error` (T, K, N) squared radii; `listeners`
    (T, G, K), `senders` (T, G, N).
    """

    rows: Tensor
    nats: Tensor
    most: Tensor
    ceiling: Tensor
    ratio: Tensor
    error: Tensor
    listeners: Tensor
    senders: Tensor
    noisy: bool


@dataclass(eq=False)
class _Boxes:
    """L boxes of all slots, and what their multipliers are made of.

    `slot` (L,); `low`, `high` (L, K); `level` (L, K), logarithms of 1 / beta - 1; `floor` (L, K),
    logarithms of lambda F; `price` (L, N), logarithms of mu up to a constant. Adam changes the
    last three in place.
    """

    slot: Tensor
    low: Tensor
    high: Tensor
    level: Tensor
    floor: Tensor
    price: Tensor

    def take(self, index: Tensor) -> _Boxes:
        """Return copies of the boxes `index`."""
        return _Boxes(*(getattr(self, f.name)[index].clone() for f in fields(self)))


@dataclass(frozen=True, eq=False)
class _Multipliers:
    """Of the boxes, all (L, K): beta, c, nu and lambda."""

    slope: Tensor
    over: Tensor
    beam_price: Tensor
    error_price: Tensor


@dataclass(frozen=True, eq=False)
class _Conditions:
    """The conditions of G messages in L boxes.

    `strength` (L, G, K or 2K), the coefficients of x x^H for every row of the slot; `disturbed`
    (L, G, K), w lambda of users that do not hear the message, None without errors; `senders`
    (L, G, N).
    """

    strength: Tensor
    disturbed: Tensor | None
    senders: Tensor


def search(
    downlinks: Sequence[Downlink], steps: int, work: float = 0.0, deadline: Deadline = NEVER
) -> list[ModeDual]:
    """Return a good dual point for every slot.

    The search maximises log sum_k w_k B_k - log max over boxes of (sum_k w_k c_k + t) over all
    multipliers, with a soft t and a soft maximum. It keeps the best iterate by the true maximum.

    Parameters
    ----------
    downlinks
        One or more; all of the same nodes and antennas, at least one user each.
    steps
        Adam steps before the first split; with 0 the start is returned.
    work
        Messages looked at times dimension^2 times steps that splitting may cost; 0: one box.
    deadline
        When to stop.

    Examples
    --------
    Two users with one node of one antenna cannot share the air. One box does not see that they
    have to take turns, for 2 / log(50) = 0.51 s. Two boxes prove that.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.bounds import downlink
    >>> from finecast.solvers.spatial.certificate import time_bound
    >>> from finecast.solvers.spatial.dual_search import search
    >>> channel, error = np.full((2, 1, 1), 7.0), np.zeros((2, 1))
    >>> case = downlink(channel, error, [1.0], np.eye(2, dtype=bool), [1.0, 1.0])
    >>> for work in (0, 1e5):
    ...     (point,) = search([case], 200, work)
    ...     print(f"{len(point.slope)} boxes: {time_bound(case, point):.2f} s")
    1 boxes: 0.46 s
    2 boxes: 0.51 s
    """
    if not downlinks:
        return []
    slots = _padded(downlinks)
    count, users = slots.nats.shape
    # Start: every user at a tenth of its SNR alone, all with an equal share of the time.
    level = 0.1 * slots.most.clamp(min=1e-2)
    weight = torch.where(slots.nats > 0, -torch.log1p(level).log(), -torch.inf)
    boxes = _Boxes(
        slot=torch.arange(count),
        low=torch.zeros_like(slots.most),
        high=slots.most.clone(),
        level=level.log(),
        floor=(0.5 * torch.log1p(level)).log(),
        price=torch.zeros(count, slots.rows.shape[2], dtype=level.dtype),
    )
    splits: list[list[tuple[int, int, float]]] = [[] for _ in downlinks]
    members: list[list[int]] = [[t] for t in range(count)]  # the boxes of each slot, in their order
    weight, boxes, value = _improve(slots, weight, boxes, FIRST, steps, deadline)
    values = [value]
    antennas = slots.rows[0, 0].numel()
    dimension = antennas if slots.noisy else min(users, antennas)
    cost = ROUND_STEPS * dimension**2 * min(slots.listeners.shape[1], ACTIVE)
    # Boxes are split until no split helps, the work is done or two rounds bring little.
    for _ in range(ROUNDS if work > 0 else 0):
        cuts = [] if deadline.over() else _cuts(slots, weight, boxes)
        work -= cost * (len(boxes.slot) + len(cuts))
        if not cuts or work < 0:
            break
        total = len(boxes.slot)
        for new, (box, user, power) in enumerate(cuts, start=total):
            t = int(boxes.slot[box])
            splits[t].append((members[t].index(box), user, power))
            members[t].append(new)
        boxes = _split(boxes, cuts)
        weight, boxes, value = _improve(slots, weight, boxes, AFTER_SPLITS, ROUND_STEPS, deadline)
        values.append(value)
        if len(values) > 2 and values[-1] < values[-3] + STALLS:
            break
    multipliers = _multipliers(slots, boxes)
    slope, error_price, beam_price = (
        values.numpy()
        for values in (multipliers.slope, multipliers.error_price, multipliers.beam_price)
    )
    price = torch.softmax(boxes.price, dim=1).numpy()
    return [
        ModeDual(
            weight=weight[t, : len(d.nats)].exp().numpy(),
            slope=slope[members[t], : len(d.nats)],
            error_price=error_price[members[t], : len(d.nats)],
            beam_price=beam_price[members[t], : len(d.nats)],
            price=price[members[t]],
            splits=tuple(splits[t]),
        )
        for t, d in enumerate(downlinks)
    ]


def _improve(
    slots: _Slots, weight: Tensor, boxes: _Boxes, stage: _Stage, steps: int, deadline: Deadline
) -> tuple[Tensor, _Boxes, float]:
    """Return better logarithms of weights (T, K), better boxes, and the mean log of the bounds."""
    count = len(slots.nats)
    present = slots.nats > 0
    real = slots.listeners.any(dim=2)[boxes.slot]  # (L, G), False for padding
    row = torch.arange(len(real))[:, None]
    weight = torch.log_softmax(weight, dim=1).clamp(min=LEAST_LOG_WEIGHT).requires_grad_()
    boxes = boxes.take(torch.arange(len(real)))
    of_boxes = [boxes.level, boxes.floor, boxes.price]
    for parameter in of_boxes:
        parameter.requires_grad_()
    optimiser = torch.optim.Adam([weight, *of_boxes], lr=stage.learning_rate, betas=(0.9, 0.99))
    best_value = torch.full((count,), -torch.inf, dtype=weight.dtype)
    best_weight = weight.detach().clone()
    best_of_boxes = [parameter.detach().clone() for parameter in of_boxes]
    for step in range(steps + 1):
        w = weight.exp() * present
        gained = (w * slots.nats).sum(dim=1).log()
        last = step == steps or deadline.over()
        try:
            # Now and then all messages are looked at. The true maximum tells whether the iterate
            # is the best so far, and which messages matter for the steps to come.
            if step % REFRESH == 0 or last:
                with torch.no_grad():
                    spent, spectra = _cost(slots, w, boxes, None)
                    tops = torch.where(real, spectra[..., -1], -torch.inf)
                    worst = _largest(spent + tops.amax(dim=1).clamp(min=0.0), boxes.slot, count)
                    value = gained - worst.log()
                    better = value > best_value
                    best_value = torch.where(better, value, best_value)
                    best_weight = torch.where(better[:, None], weight, best_weight)
                    best_of_boxes = [
                        torch.where(better[boxes.slot, None], parameter, best)
                        for parameter, best in zip(of_boxes, best_of_boxes, strict=True)
                    ]
                    active = tops.topk(min(ACTIVE, tops.shape[1]), dim=1).indices
                    silent = ~real[row, active]
            if last:
                break
            spent, eigenvalues = _cost(slots, w, boxes, active)
        except RuntimeError:  # numbers out of range: the best so far will do
            break
        # A step of Adam on the soft maximum over eigenvalues, messages and boxes.
        eigenvalues = eigenvalues.masked_fill(silent[..., None], -torch.inf).flatten(1)
        eigenvalues = torch.cat([eigenvalues, torch.zeros(len(real), 1)], dim=1)  # t >= 0
        sharpness = stage.soft * (stage.sharp / stage.soft) ** (step / steps)
        soft_worst = _soft_largest(spent[:, None] + eigenvalues, boxes.slot, count, sharpness)
        optimiser.zero_grad()
        torch.autograd.backward((soft_worst.log() - gained).sum())
        optimiser.step()
        # The bound does not change with the scale of w, nor of the prices before their softmax.
        with torch.no_grad():
            weight.copy_(torch.log_softmax(weight, dim=1).clamp(min=LEAST_LOG_WEIGHT))
            boxes.price.copy_(torch.log_softmax(boxes.price, dim=1).clamp(min=LEAST_LOG_PRICE))
            boxes.level.clamp_(-20.0, 40.0)
            boxes.floor.clamp_(-40.0, 40.0)
    level, floor, price = best_of_boxes
    improved = replace(boxes, level=level, floor=floor, price=price)
    return best_weight, improved, float(best_value.mean())


def _cuts(slots: _Slots, weight: Tensor, boxes: _Boxes) -> list[tuple[int, int, float]]:
    """Return (box, user, power) of the splits that promise most.

    With X the covariances that attain t, user k receives Y_k from others' messages. What
    c_k(low, high) is at Y_k above the cost of a box that ends there, the bound gains by the split.
    """
    w = (weight.exp() * (slots.nats > 0))[boxes.slot]
    listeners = slots.listeners[boxes.slot]
    multipliers = _multipliers(slots, boxes)
    conditions = _conditions(slots, w, boxes, multipliers, None)
    strength = conditions.strength.requires_grad_()
    try:
        spectra = _spectra(slots, boxes, conditions)
    except RuntimeError:  # numbers out of range
        return []
    # Y_k is the derivative of t with respect to the coefficient of user k's channel.
    spent = (w * multipliers.over).sum(dim=1)
    real = listeners.any(dim=2)
    tops = torch.where(real[..., None], spectra, -torch.inf)
    value = (spent + tops.amax(dim=(1, 2)).clamp(min=0.0)).detach()
    largest = tops.detach().amax(dim=(1, 2)).clamp(min=1e-200)
    soft = torch.logsumexp(1000.0 * tops.flatten(1) / largest[:, None], dim=1) * largest / 1000.0
    (received,) = torch.autograd.grad(soft.sum(), strength)
    users = listeners.shape[2]
    power = (received[..., -users:].detach() * ~listeners).sum(dim=1)
    power = power.maximum(boxes.low).minimum(boxes.high)
    # What the chord between the ends of the box lies above c_k at Y_k.
    at_low, at_high, at_power = (
        _most(slots, boxes, multipliers.slope, multipliers.error_price, y)
        for y in (boxes.low, boxes.high, power)
    )
    width = boxes.high - boxes.low
    share = (power - boxes.low) / width.clamp(min=1e-200)
    drop = w * (at_low + share * (at_high - at_low) - at_power)
    # Cuts stay off the ends, so that both parts are smaller by a good deal.
    inside = torch.where(boxes.low > 0, 0.02, 0.001) * width
    power = power.clamp(min=boxes.low + inside, max=boxes.low + 0.6 * width)
    worst = _largest(value, boxes.slot, len(slots.nats))[boxes.slot]
    cuts = []
    taken = torch.zeros(len(slots.nats), dtype=torch.int64)
    for box in torch.argsort(-value).tolist():
        t, user = boxes.slot[box], int(drop[box].argmax())
        helps = drop[box, user] > HELPS * value[box]
        if taken[t] < SPLITS and value[box] >= NEAR * worst[box] and helps:
            taken[t] += 1
            cuts.append((box, user, float(power[box, user])))
    return cuts


def _split(boxes: _Boxes, cuts: list[tuple[int, int, float]]) -> _Boxes:
    """Return the boxes cut at (box, user, power), the upper parts at the end."""
    count = len(boxes.slot)
    parts = boxes.take(torch.tensor([*range(count), *(box for box, _, _ in cuts)]))
    for upper, (box, user, power) in enumerate(cuts, start=count):
        parts.high[box, user] = parts.low[upper, user] = power
    return parts


def _largest(values: Tensor, slot: Tensor, count: int) -> Tensor:
    """Return (T,) the largest of the values (L,) of each slot."""
    start = torch.full((count,), -torch.inf, dtype=values.dtype)
    return start.scatter_reduce(0, slot, values, "amax")


def _soft_largest(values: Tensor, slot: Tensor, count: int, sharpness: float) -> Tensor:
    """Return (T,) the soft maximum of the values (L, X) of each slot."""
    scale = _largest(values.detach().amax(dim=1), slot, count)
    by_box = torch.logsumexp(sharpness * values / scale[slot, None], dim=1)
    share = torch.zeros(count, dtype=by_box.dtype)
    share = share.index_add(0, slot, (by_box - sharpness).exp())
    return (sharpness + share.log()) * scale / sharpness


def _psi(s: Tensor) -> Tensor:
    s = s.clamp(max=1.0)
    return s - 1.0 - s.log()


def _most(
    slots: _Slots, boxes: _Boxes, slope: Tensor, error_price: Tensor, power: Tensor
) -> Tensor:
    """Return (L, K) as `finecast.solvers.spatial.certificate.most_over_prices`, not rounded.

    At the best e the derivative vanishes, so that none is taken through it.
    """
    noise = 1.0 + power
    if not slots.noisy:
        return _psi(slope * noise)
    top, ratio = slots.ceiling[boxes.slot], slots.ratio[boxes.slot]
    limited = torch.isfinite(ratio) & (ratio > 1.0) & (top > 0)
    kappa = torch.where(limited, ratio, 2.0)
    # Where the derivative vanishes, as in `most_over_prices`.
    with torch.no_grad():
        start = ((kappa * top + noise - 1.0 / slope) / (kappa - 1.0)).clamp(min=0.0).minimum(top)
        steep, whole = slope * kappa + error_price, kappa * (top + noise)
        root = ((steep * whole) ** 2 - 4.0 * steep * (kappa - 1.0) * whole).clamp(min=0.0).sqrt()
        flat = (steep * whole + root) / (2.0 * steep * (kappa - 1.0)) - noise
        flat = flat.maximum(start).minimum(top)
    # The largest of the value at both ends and there, with the best signal for each.
    values = [error_price * top + torch.where(limited, 0.0, _psi(slope * (noise + top)))]
    for e in (torch.zeros_like(top), torch.where(limited, flat, top)):
        limit = torch.where(limited, kappa * (top - e), torch.inf)
        signal = (1.0 / slope - noise - e).minimum(limit).clamp(min=0.0)
        values.append(torch.log1p(signal / (noise + e)) - slope * signal + error_price * e)
    return torch.stack(values).amax(dim=0)


def _multipliers(slots: _Slots, boxes: _Boxes) -> _Multipliers:
    """Return the multipliers of the boxes, with nu such that both ends of a box cost the same."""
    slope = 1.0 / (1.0 + boxes.level.exp())
    error_price = boxes.floor.exp() / slots.ceiling[boxes.slot].clamp(min=1e-200)
    error_price = error_price * (slots.ceiling[boxes.slot] > 0)
    low, high = (_most(slots, boxes, slope, error_price, y) for y in (boxes.low, boxes.high))
    beam_price = ((low - high) / (boxes.high - boxes.low).clamp(min=1e-200)).clamp(min=0.0)
    return _Multipliers(slope, low + beam_price * boxes.low, beam_price, error_price)


def _conditions(
    slots: _Slots, weight: Tensor, boxes: _Boxes, multipliers: _Multipliers, active: Tensor | None
) -> _Conditions:
    """Return the conditions of the messages `active` (L, G'), or of all, at weights (L, K)."""
    listeners, senders = slots.listeners[boxes.slot], slots.senders[boxes.slot]
    if active is not None:
        row = torch.arange(len(active))[:, None]
        listeners, senders = listeners[row, active], senders[row, active]
    gain = (weight * multipliers.slope)[:, None]
    loss = (weight * multipliers.beam_price)[:, None]
    if not slots.noisy:
        return _Conditions(torch.where(listeners, gain, -loss), None, senders)
    return _Conditions(
        strength=torch.cat([gain * listeners, -loss * ~listeners], dim=2),
        disturbed=(weight * multipliers.error_price)[:, None] * ~listeners,
        senders=senders,
    )


def _cost(slots: _Slots, w: Tensor, boxes: _Boxes, active: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (L,) sum_k w_k c_k and (L, G, m) eigenvalues, rising, of the conditions.

    The eigenvalues are those of the messages `active` (L, G'), or of all.
    """
    multipliers, weight = _multipliers(slots, boxes), w[boxes.slot]
    conditions = _conditions(slots, weight, boxes, multipliers, active)
    spectra = _spectra(slots, boxes, conditions)
    return (weight * multipliers.over).sum(dim=1), spectra


def _spectra(slots: _Slots, boxes: _Boxes, conditions: _Conditions) -> Tensor:
    """Return (L, G, m) the eigenvalues of the conditions, rising."""
    price = torch.softmax(boxes.price, dim=1)
    antennas = slots.rows.shape[3]
    rows = (slots.rows[boxes.slot] / price.sqrt()[:, None, :, None]).flatten(2)
    everywhere = bool(conditions.senders.all())
    if everywhere and not slots.noisy and rows.shape[1] < rows.shape[2]:
        # With L L^H the users' Gram matrix, L^H diag(a) L has the same non-zero eigenvalues.
        gram = rows @ rows.mH
        ridge = 1e-13 * gram.diagonal(dim1=1, dim2=2).real.amax(dim=1) + 1e-200
        eye = torch.eye(rows.shape[1], dtype=gram.dtype)
        rows = torch.linalg.cholesky(gram + ridge[:, None, None] * eye)
    matrices = rows.mH[:, None] @ (conditions.strength[..., None] * rows[:, None])
    if conditions.disturbed is not None:
        disturbed = conditions.disturbed.to(price.dtype)
        floor = disturbed @ (slots.error[boxes.slot] / price[:, None])
        matrices = matrices - torch.diag_embed(floor.repeat_interleave(antennas, dim=2))
    if not everywhere:
        sending = conditions.senders.repeat_interleave(antennas, dim=2)
        matrices = matrices * (sending[..., None, :] & sending[..., None])
    spectra: Tensor = torch.linalg.eigvalsh(matrices)
    return spectra


def _padded(downlinks: Sequence[Downlink]) -> _Slots:
    """Return the slots side by side."""

    def side_by_side(arrays: Iterable[NDArray[Any]], padding: float = 0.0) -> Tensor:
        return pad_sequence([torch.tensor(a) for a in arrays], True, padding)

    users = max(len(d.nats) for d in downlinks)
    noisy = any(bool(d.error.any()) for d in downlinks)
    rows = [side_by_side(d.weakest for d in downlinks)]
    if noisy:
        rows.append(side_by_side(d.channel for d in downlinks))
    listeners = (np.pad(d.listeners, ((0, 0), (0, users - len(d.nats)))) for d in downlinks)
    return _Slots(
        rows=torch.cat(rows, dim=1),
        nats=side_by_side(d.nats for d in downlinks),
        most=side_by_side((strongest(d.channel) for d in downlinks), 1.0),
        ceiling=side_by_side(floors(d)[0] for d in downlinks),
        ratio=side_by_side(floors(d)[1] for d in downlinks),
        error=side_by_side(d.error**2 for d in downlinks),
        listeners=side_by_side(listeners),
        senders=side_by_side((d.senders for d in downlinks), 1.0),
        noisy=noisy,
    )
