"""Search for good dual points of the bound on the broadcast time of spatial delivery.

Any point proves a bound (`finecast.solvers.spatial.certificate`), so that nothing here need be
exact. The points are found by Adam on the logarithm of the bound, the boxes of all slots side by
side; then the boxes that decide the bound are split where that helps most, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.spatial.certificate import Downlink, ModeDual, floors, strongest

LEARNING_RATE = (0.1, 0.05)
"""Of the first search, and after splits."""

SHARPNESS = ((30.0, 3000.0), (200.0, 2000.0))
"""First and last beta of the soft maximum (1/beta) log sum exp(beta lambda), largest about 1; of
the first search, and after splits."""

REFRESH, ACTIVE = 10, 6
"""Every so many steps all messages are looked at; between, those of the largest eigenvalues."""

ROUND_STEPS = 100
"""Adam steps after a round of splits."""

SPLITS, NEAR = 4, 0.97
"""Most boxes of a slot split in a round, and how near to the worst one they must be."""

ROUNDS = 10
"""Rounds of splits, at most."""

HELPS, STALLS = 1e-3, 3e-3
"""A split must promise this share of what the box costs, two rounds this much in the
mean."""


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
    """L boxes of all slots: `slot` (L,), `low`, `high` (L, K); logarithms of 1 / beta - 1 and of
    lambda F (L, K), of mu (L, N); indices within the slot's `splits`.
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


def search(
    downlinks: Sequence[Downlink], steps: int, work: float = 0.0, deadline: Deadline = NEVER
) -> list[ModeDual]:
    """Return a good dual point for every slot.

    Maximises log sum_k w_k B_k - log max over boxes of (sum_k w_k c_k + t) over all multipliers,
    where t and the maximum are soft, and keeps the best iterate by the true maximum.

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
    """
    if not downlinks:
        return []
    slots = _padded(downlinks)
    count, users = slots.nats.shape
    # Start: every user at a tenth of its SNR alone, all with an equal share of the time.
    level = 0.1 * slots.most.clamp(min=1e-2)
    weight = torch.where(slots.nats > 0, -torch.log1p(level).log(), -torch.inf)
    boxes = _Boxes(
        torch.arange(count),
        torch.zeros_like(slots.most),
        slots.most.clone(),
        level.log(),
        (0.5 * torch.log1p(level)).log(),
        torch.zeros(count, slots.rows.shape[2], dtype=level.dtype),
    )
    splits: list[list[tuple[int, int, float]]] = [[] for _ in downlinks]
    own: list[list[int]] = [[t] for t in range(count)]  # the boxes of each slot, in their order
    weight, reached = _improve(slots, weight, boxes, steps, 0, deadline)
    values = [reached]
    antennas = slots.rows[0, 0].numel()
    dimension = antennas if slots.noisy else min(users, antennas)
    cost = ROUND_STEPS * dimension**2 * min(slots.listeners.shape[1], ACTIVE)
    for _ in range(ROUNDS if work > 0 else 0):
        cuts = _cuts(slots, weight, boxes) if not deadline.over() else []
        work -= cost * (len(boxes.slot) + len(cuts))
        if not cuts or work < 0:
            break
        total = len(boxes.slot)
        boxes = boxes.take(torch.tensor([*range(total), *(box for box, _, _ in cuts)]))
        for new, (box, user, power) in enumerate(cuts, start=total):
            t = int(boxes.slot[box])
            splits[t].append((own[t].index(box), user, power))
            own[t].append(new)
            boxes.high[box, user] = boxes.low[new, user] = power
        weight, reached = _improve(slots, weight, boxes, ROUND_STEPS, 1, deadline)
        values.append(reached)
        if len(values) > 2 and values[-1] < values[-3] + STALLS:
            break
    slope, _, loss, charge = (each.numpy() for each in _multipliers(slots, boxes))
    price = torch.softmax(boxes.price, dim=1).numpy()
    points = []
    for t, d in enumerate(downlinks):
        part, there = np.array(own[t]), len(d.nats)
        beta, disturbed, beams = (values[part, :there] for values in (slope, charge, loss))
        share = weight[t, :there].exp().numpy()
        points.append(ModeDual(share, beta, disturbed, beams, price[part], tuple(splits[t])))
    return points


def _improve(
    slots: _Slots, weight: Tensor, boxes: _Boxes, steps: int, stage: int, deadline: Deadline
) -> tuple[Tensor, float]:
    """Return better logarithms of the weights (T, K) and the mean logarithm of the bounds.

    The multipliers of the boxes are changed.
    """
    count = len(slots.nats)
    present = slots.nats > 0
    real = slots.listeners.any(dim=2)[boxes.slot]  # (L, G), False for padding
    row = torch.arange(len(real))[:, None]
    weight = torch.log_softmax(weight, dim=1).clamp(min=-40.0).requires_grad_()
    parameters = [weight, boxes.level, boxes.floor, boxes.price]
    for parameter in parameters[1:]:
        parameter.requires_grad_()
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE[stage], betas=(0.9, 0.99))
    best = torch.full((count,), -torch.inf, dtype=weight.dtype)
    kept = [parameter.detach().clone() for parameter in parameters]
    soft, sharp = SHARPNESS[stage]
    for step in range(steps + 1):
        w = weight.exp() * present
        gained = (w * slots.nats).sum(dim=1).log()
        last = step == steps or deadline.over()
        try:
            if step % REFRESH == 0 or last:
                with torch.no_grad():
                    spent, spectra = _cost(slots, w, boxes, None)
                    tops = torch.where(real, spectra[..., -1], -torch.inf)
                    worst = _largest(spent + tops.amax(dim=1).clamp(min=0.0), boxes.slot, count)
                    value = gained - worst.log()
                    better = value > best
                    best = torch.where(better, value, best)
                    for i, (keep, parameter) in enumerate(zip(kept, parameters, strict=True)):
                        which = better if i == 0 else better[boxes.slot]
                        keep[which] = parameter[which]
                    active = tops.topk(min(ACTIVE, tops.shape[1]), dim=1).indices
                    silent = ~real[row, active]
            if last:
                break
            spent, eigenvalues = _cost(slots, w, boxes, active)
        except RuntimeError:  # numbers out of range: the best so far will do
            break
        eigenvalues = eigenvalues.masked_fill(silent[..., None], -torch.inf).flatten(1)
        eigenvalues = torch.cat([eigenvalues, torch.zeros(len(real), 1)], dim=1)  # t >= 0
        total = spent[:, None] + eigenvalues
        scale = _largest(total.detach().amax(dim=1), boxes.slot, count)
        beta = soft * (sharp / soft) ** (step / steps)
        each = torch.logsumexp(beta * total / scale[boxes.slot, None], dim=1)
        share = torch.zeros(count, dtype=each.dtype)
        share = share.index_add(0, boxes.slot, (each - beta).exp())
        worst = (beta + share.log()) * scale / beta
        optimiser.zero_grad()
        (worst.log() - gained).sum().backward()
        optimiser.step()
        with torch.no_grad():  # the bound is homogeneous in w
            weight.copy_(torch.log_softmax(weight, dim=1).clamp(min=-40.0))
            boxes.price.copy_(torch.log_softmax(boxes.price, dim=1).clamp(min=-25.0))
            boxes.level.clamp_(-20.0, 40.0)
            boxes.floor.clamp_(-40.0, 40.0)
    weight, boxes.level, boxes.floor, boxes.price = kept
    return weight, float(best.mean())


def _cuts(slots: _Slots, weight: Tensor, boxes: _Boxes) -> list[tuple[int, int, float]]:
    """Return (box, user, power) of the splits that promise most.

    With X the covariances that attain t, user k receives Y_k from others' messages; by as much as
    c_k(low, high) lies at Y_k above what it would be for a box that ends there, the bound falls.
    """
    w = weight.exp() * (slots.nats > 0)
    heard = slots.listeners[boxes.slot]
    strength: list[Tensor] = []
    try:
        spent, spectra = _cost(slots, w, boxes, None, strength)
    except RuntimeError:
        return []
    real = slots.listeners.any(dim=2)[boxes.slot]
    tops = torch.where(real[..., None], spectra, -torch.inf)
    value = (spent + tops.amax(dim=(1, 2)).clamp(min=0.0)).detach()
    largest = tops.detach().amax(dim=(1, 2)).clamp(min=1e-200)
    soft = torch.logsumexp(1000.0 * tops.flatten(1) / largest[:, None], dim=1) * largest / 1000.0
    (received,) = torch.autograd.grad(soft.sum(), strength[0])
    users = heard.shape[2]
    power = (received[..., -users:].detach() * ~heard).sum(dim=1)
    power = power.maximum(boxes.low).minimum(boxes.high)
    slope, _, _, charge = _multipliers(slots, boxes)
    at = [_most(slots, boxes, slope, charge, y) for y in (boxes.low, boxes.high, power)]
    share = (power - boxes.low) / (boxes.high - boxes.low).clamp(min=1e-200)
    drop = w[boxes.slot] * (at[0] + share * (at[1] - at[0]) - at[2])
    width = boxes.high - boxes.low
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


def _largest(values: Tensor, slot: Tensor, count: int) -> Tensor:
    """Return (T,) the largest of the values (L,) of each slot."""
    start = torch.full((count,), -torch.inf, dtype=values.dtype)
    return start.scatter_reduce(0, slot, values, "amax")


def _psi(s: Tensor) -> Tensor:
    s = s.clamp(max=1.0)
    return s - 1.0 - s.log()


def _most(slots: _Slots, boxes: _Boxes, slope: Tensor, charge: Tensor, power: Tensor) -> Tensor:
    """Return (L, K) as `finecast.solvers.spatial.certificate.most_over_prices`, not rounded.

    At the best e the derivative vanishes, so that none is taken through it.
    """
    noise = 1.0 + power
    if not slots.noisy:
        return _psi(slope * noise)
    top, ratio = slots.ceiling[boxes.slot], slots.ratio[boxes.slot]
    limited = torch.isfinite(ratio) & (ratio > 1.0) & (top > 0)
    kappa = torch.where(limited, ratio, 2.0)
    with torch.no_grad():
        start = ((kappa * top + noise - 1.0 / slope) / (kappa - 1.0)).clamp(min=0.0).minimum(top)
        steep, whole = slope * kappa + charge, kappa * (top + noise)
        root = ((steep * whole) ** 2 - 4.0 * steep * (kappa - 1.0) * whole).clamp(min=0.0).sqrt()
        flat = (steep * whole + root) / (2.0 * steep * (kappa - 1.0)) - noise
        flat = flat.maximum(start).minimum(top)
    values = [charge * top + torch.where(limited, 0.0, _psi(slope * (noise + top)))]
    for e in (torch.zeros_like(top), torch.where(limited, flat, top)):
        limit = torch.where(limited, kappa * (top - e), torch.inf)
        signal = (1.0 / slope - noise - e).minimum(limit).clamp(min=0.0)
        values.append(torch.log1p(signal / (noise + e)) - slope * signal + charge * e)
    return torch.stack(values).amax(dim=0)


def _multipliers(slots: _Slots, boxes: _Boxes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (L, K) beta, c, nu and lambda: nu makes both ends of the box cost the same."""
    slope = 1.0 / (1.0 + boxes.level.exp())
    charge = boxes.floor.exp() / slots.ceiling[boxes.slot].clamp(min=1e-200)
    charge = charge * (slots.ceiling[boxes.slot] > 0)
    low, high = (_most(slots, boxes, slope, charge, y) for y in (boxes.low, boxes.high))
    loss = ((low - high) / (boxes.high - boxes.low).clamp(min=1e-200)).clamp(min=0.0)
    return slope, low + loss * boxes.low, loss, charge


def _cost(
    slots: _Slots,
    w: Tensor,
    boxes: _Boxes,
    active: Tensor | None,
    strength: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (L,) sum_k w_k c_k and (L, G, m) eigenvalues, rising, of the conditions.

    Those of the messages `active` (L, G'), or of all. `strength` takes the coefficients of the
    matrices x x^H, ready for a derivative.
    """
    slope, over, loss, charge = _multipliers(slots, boxes)
    weight = w[boxes.slot]
    listeners, senders = slots.listeners[boxes.slot], slots.senders[boxes.slot]
    if active is not None:
        row = torch.arange(len(active))[:, None]
        listeners, senders = listeners[row, active], senders[row, active]
    price = torch.softmax(boxes.price, dim=1)
    antennas = slots.rows.shape[3]
    rows = (slots.rows[boxes.slot] / price.sqrt()[:, None, :, None]).flatten(2)
    gain, cost = (weight * slope)[:, None], (weight * loss)[:, None]
    if slots.noisy:
        coefficient = torch.cat([gain * listeners, -cost * ~listeners], dim=2)
    else:
        coefficient = torch.where(listeners, gain, -cost)
    if strength is not None:
        coefficient = coefficient.detach().requires_grad_()
        strength.append(coefficient)
    everywhere = bool(senders.all())
    if everywhere and not slots.noisy and rows.shape[1] < rows.shape[2]:
        # With L L^H the users' Gram matrix, L^H diag(a) L has the same non-zero eigenvalues.
        gram = rows @ rows.mH
        ridge = 1e-13 * gram.diagonal(dim1=1, dim2=2).real.amax(dim=1) + 1e-200
        eye = torch.eye(rows.shape[1], dtype=gram.dtype)
        rows = torch.linalg.cholesky(gram + ridge[:, None, None] * eye)
    matrices = rows.mH[:, None] @ (coefficient[..., None] * rows[:, None])
    if slots.noisy:
        disturbed = (weight * charge)[:, None] * ~listeners
        floor = disturbed.to(price.dtype) @ (slots.error[boxes.slot] / price[:, None])
        matrices = matrices - torch.diag_embed(floor.repeat_interleave(antennas, dim=2))
    if not everywhere:
        sending = senders.repeat_interleave(antennas, dim=2)
        matrices = matrices * (sending[..., None, :] & sending[..., None])
    spectra: Tensor = torch.linalg.eigvalsh(matrices)
    return (weight * over).sum(dim=1), spectra


def _padded(downlinks: Sequence[Downlink]) -> _Slots:
    """Return the slots side by side."""
    slots, users = len(downlinks), max(len(d.nats) for d in downlinks)
    groups = max(len(d.listeners) for d in downlinks)
    nodes, antennas = downlinks[0].channel.shape[1:]
    noisy = any(bool(d.error.any()) for d in downlinks)
    rows = np.zeros((slots, 2 if noisy else 1, users, nodes, antennas), dtype=np.complex128)
    nats, ceiling, ratio = (np.zeros((slots, users)) for _ in range(3))
    most = np.ones((slots, users))
    error = np.zeros((slots, users, nodes))
    listeners = np.zeros((slots, groups, users), dtype=bool)
    senders = np.ones((slots, groups, nodes), dtype=bool)
    for t, d in enumerate(downlinks):
        there = len(d.nats)
        rows[t, 0, :there] = d.weakest
        if noisy:
            rows[t, 1, :there] = d.channel
        nats[t, :there] = d.nats
        most[t, :there] = strongest(d.channel)
        ceiling[t, :there], ratio[t, :there] = floors(d)
        error[t, :there] = d.error**2
        listeners[t, : len(d.listeners), :there] = d.listeners
        senders[t, : len(d.listeners)] = d.senders
    return _Slots(
        rows=torch.from_numpy(rows.reshape(slots, -1, nodes, antennas)),
        nats=torch.from_numpy(nats),
        most=torch.from_numpy(most),
        ceiling=torch.from_numpy(ceiling),
        ratio=torch.from_numpy(ratio),
        error=torch.from_numpy(error),
        listeners=torch.from_numpy(listeners),
        senders=torch.from_numpy(senders),
        noisy=noisy,
    )
