"""What the batched beamforming accepts: shapes, ranges, arrays and tensors alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """Checked arguments on the computing device.

    Attributes
    ----------
    channel, error, power
        (B, K, N, A) complex128, (B, K, N) and (B, N) float64.
    nodes, users
        (B, N) and (B, K) bool.
    """

    channel: Tensor
    error: Tensor
    power: Tensor
    nodes: Tensor
    users: Tensor

    def take(self, index: Tensor | slice) -> Inputs:
        """Return the problems `index` of the batch."""
        return Inputs(
            self.channel[index],
            self.error[index],
            self.power[index],
            self.nodes[index],
            self.users[index],
        )


def checked_inputs(
    channel: ArrayLike | Tensor,
    error: ArrayLike | Tensor,
    power: ArrayLike | Tensor,
    node_mask: ArrayLike | Tensor | None,
    user_mask: ArrayLike | Tensor | None,
    device: str | torch.device,
) -> Inputs:
    """Bring the inputs to complex128, float64 and bool tensors, or say what is wrong.

    Raises
    ------
    ValueError
        Naming the argument that is misshaped, not finite or out of range.
    """
    g = _tensor("channel", channel, torch.complex128, device)
    if g.ndim != 4 or 0 in g.shape[1:]:
        raise ValueError(
            f"channel: shape is {tuple(g.shape)}, expected (B, K, N, A), none of K, N, A 0"
        )
    batch, users, nodes, _ = g.shape
    _refuse("channel", g, ~g.isfinite(), "finite")
    e = _tensor("error", error, torch.float64, device)
    _shape("error", e, (batch, users, nodes))
    _refuse("error", e, ~(e.isfinite() & (e >= 0)), "finite and >= 0")
    p = _tensor("power", power, torch.float64, device)
    if p.ndim == 1:
        _shape("power", p, (nodes,))
        p = p.expand(batch, nodes)
    _shape("power", p, (batch, nodes))
    _refuse("power", p, ~(p.isfinite() & (p >= 0)), "finite and >= 0")
    shape = (batch, nodes)
    on = torch.ones(shape, dtype=torch.bool, device=device)
    if node_mask is not None:
        on = _tensor("node_mask", node_mask, torch.bool, device)
        _shape("node_mask", on, shape)
    shape = (batch, users)
    there = torch.ones(shape, dtype=torch.bool, device=device)
    if user_mask is not None:
        there = _tensor("user_mask", user_mask, torch.bool, device)
        _shape("user_mask", there, shape)
        _refuse("user_mask", there.any(-1), ~there.any(-1), "a group with at least one user")
    return Inputs(g, e, p, on, there)


def _tensor(
    name: str, value: ArrayLike | Tensor, dtype: torch.dtype, device: str | torch.device
) -> Tensor:
    array = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    if dtype == torch.bool and array.dtype != torch.bool:
        raise ValueError(f"{name}: elements are {array.dtype}, expected bool")
    if dtype == torch.float64 and array.dtype.is_complex:
        raise ValueError(f"{name}: elements are {array.dtype}, expected real numbers")
    return array.detach().resolve_conj().to(device=device, dtype=dtype)


def _shape(name: str, array: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(array.shape) != shape:
        raise ValueError(f"{name}: shape is {tuple(array.shape)}, expected {shape}")


def _refuse(name: str, array: Tensor, bad: Tensor, allowed: str) -> None:
    if bool(bad.any()):
        index = tuple(bad.nonzero()[0].tolist())
        where = ", ".join(map(str, index))
        raise ValueError(
            f"{name}[{where}]: {array[index].item()} is not allowed, must be {allowed}"
        )
