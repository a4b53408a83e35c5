"""Search for good dual points of the bound on the broadcast time of spatial delivery.

Any point proves a bound (`solvers.spatial_certificate`), so that nothing here need be exact: the
points are found by Adam on the logarithm of the bound, all slots side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from solvers.spatial_certificate import Downlink, DualPoint, strongest

LEARNING_RATE = 0.1
SHARPNESS = (30.0, 3000.0)
"""First and last beta of the soft maximum (1/beta) log sum exp(beta lambda), largest about 1."""

REFRESH, ACTIVE = 10, 6
"""Every so many steps all messages are looked at; between, those of the largest eigenvalues."""


def search(downlinks: Sequence[Downlink], steps: int) -> list[DualPoint]:
    """Return a good dual point for every slot.

    Maximises log sum_k w_k B_k - log(sum_k w_k phi(M_k) + t) over log w, log M and log mu, where t
    is the soft maximum of the eigenvalues, and keeps the best iterate by their true maximum.

    Parameters
    ----------
    downlinks
        One or more; all of the same nodes and antennas, at least one user each.
    steps
        Adam steps; with 0 the start is returned.
    """
    if not downlinks:
        return []
    channel, nats, received, listeners, senders = _padded(downlinks)
    slots, users, nodes, antennas = channel.shape
    sending = senders.repeat_interleave(antennas, dim=2)
    row = torch.arange(slots)[:, None]
    present = nats > 0
    real = listeners.any(dim=2)  # (T, G), False for padding

    # Start: every user at a tenth of its SNR alone, all with an equal share of the time.
    level = 0.1 * received.clamp(min=1e-2)
    log_weight = torch.where(present, -torch.log1p(level).log(), -torch.inf)
    log_weight = torch.log_softmax(log_weight, dim=1).clamp(min=-40.0).requires_grad_()
    log_level = level.log().requires_grad_()
    log_price = torch.zeros(slots, nodes, dtype=nats.dtype).requires_grad_()
    parameters = [log_weight, log_level, log_price]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99))

    best = torch.full((slots,), -torch.inf, dtype=nats.dtype)
    kept = [parameter.detach().clone() for parameter in parameters]
    for step in range(steps + 1):
        weight = log_weight.exp() * present
        level = log_level.exp()
        slope = 1.0 / (1.0 + level)
        phi = torch.log1p(level) - level * slope
        gain, loss = weight * slope, weight * phi / received
        price = torch.softmax(log_price, dim=1)
        scaled = (channel / price.sqrt()[:, None, :, None]).reshape(slots, users, -1)
        gained, spent = (weight * nats).sum(dim=1).log(), (weight * phi).sum(dim=1)
        try:
            if step % REFRESH == 0 or step == steps:
                with torch.no_grad():
                    tops = _spectra(scaled, gain, loss, listeners, sending)[..., -1]
                    tops = torch.where(real, tops, -torch.inf)
                    value = gained - (spent + tops.amax(dim=1).clamp(min=0.0)).log()
                    better = value > best
                    best = torch.where(better, value, best)
                    for keep, parameter in zip(kept, parameters, strict=True):
                        keep[better] = parameter[better]
                    active = tops.topk(min(ACTIVE, tops.shape[1]), dim=1).indices
                    heard, sent = (each[row, active] for each in (listeners, sending))
                    silent = ~real[row, active]
            if step == steps:
                break
            eigenvalues = _spectra(scaled, gain, loss, heard, sent)
        except RuntimeError:  # numbers out of range: the best so far will do
            break
        eigenvalues = eigenvalues.masked_fill(silent[..., None], -torch.inf).flatten(1)
        eigenvalues = torch.cat([eigenvalues, torch.zeros(slots, 1)], dim=1)  # t >= 0
        scale = torch.maximum(eigenvalues.amax(dim=1), 0.1 * spent).detach()
        beta = SHARPNESS[0] * (SHARPNESS[1] / SHARPNESS[0]) ** (step / steps)
        soft = torch.logsumexp(beta * eigenvalues / scale[:, None], dim=1) * scale / beta
        optimiser.zero_grad()
        ((spent + soft).log() - gained).sum().backward()
        optimiser.step()
        with torch.no_grad():  # the bound is homogeneous in w
            log_weight.copy_(torch.log_softmax(log_weight, dim=1).clamp(min=-40.0))
            log_price.copy_(torch.log_softmax(log_price, dim=1).clamp(min=-25.0))
            log_level.clamp_(-20.0, 40.0)
    weights, levels, prices = (keep.exp().numpy() for keep in kept)
    return [
        DualPoint(weights[t, : len(d.nats)], 1.0 / (1.0 + levels[t, : len(d.nats)]), prices[t])
        for t, d in enumerate(downlinks)
    ]


def _spectra(
    scaled: torch.Tensor,
    gain: torch.Tensor,
    loss: torch.Tensor,
    listeners: torch.Tensor,
    sending: torch.Tensor,
) -> torch.Tensor:
    """Return (T, G, m) eigenvalues, rising, of the conditions, in the smaller dimension.

    sum of gain_k x_k x_k^H over the listeners less that of loss_k x_k x_k^H over the others,
    without the antennas of silent nodes. `scaled` is (T, K, N A), `gain` and `loss` (T, K),
    `listeners` (T, G, K), `sending` (T, G, N A).
    """
    coefficient = torch.where(listeners, gain[:, None], -loss[:, None])
    everywhere = bool(sending.all())
    if everywhere and scaled.shape[1] < scaled.shape[2]:
        # With L L^H the users' Gram matrix, L^H diag(a) L has the same non-zero eigenvalues.
        gram = scaled @ scaled.mH
        ridge = 1e-13 * gram.diagonal(dim1=1, dim2=2).real.amax(dim=1) + 1e-200
        eye = torch.eye(scaled.shape[1], dtype=gram.dtype)
        scaled = torch.linalg.cholesky(gram + ridge[:, None, None] * eye)
    rows = scaled[:, None]
    matrices = rows.mH @ (coefficient[..., None] * rows)
    if not everywhere:
        matrices = matrices * (sending[..., None, :] & sending[..., None])
    spectra: torch.Tensor = torch.linalg.eigvalsh(matrices)
    return spectra


def _padded(
    downlinks: Sequence[Downlink],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return channel, nats, received, listeners and senders of all, zeros in the missing places."""
    slots, users = len(downlinks), max(len(d.nats) for d in downlinks)
    groups = max(len(d.listeners) for d in downlinks)
    nodes, antennas = downlinks[0].channel.shape[1:]
    channel = np.zeros((slots, users, nodes, antennas), dtype=np.complex128)
    nats, received = np.zeros((slots, users)), np.ones((slots, users))
    listeners = np.zeros((slots, groups, users), dtype=bool)
    senders = np.ones((slots, groups, nodes), dtype=bool)
    for t, d in enumerate(downlinks):
        channel[t, : len(d.nats)] = d.channel
        nats[t, : len(d.nats)] = d.nats
        received[t, : len(d.nats)] = np.maximum(strongest(d.channel), 1e-100)
        listeners[t, : len(d.listeners), : len(d.nats)] = d.listeners
        senders[t, : len(d.listeners)] = d.senders
    return (
        torch.from_numpy(channel),
        torch.from_numpy(nats),
        torch.from_numpy(received),
        torch.from_numpy(listeners),
        torch.from_numpy(senders),
    )
