"""Mixers: from the values of single nodes to the value of all, for many node sets at once.

A monotonic mixer never falls when the value of one node rises, so the best choice of every node
alone is the best choice of all (Rashid et al., QMIX, JMLR 21 (2020), arXiv 2003.08839); the sum is
its simplest case (VDN, arXiv 1706.05296). Weights come from the state and are not negative; nodes
share them, so that any number of nodes can be mixed.
"""

from __future__ import annotations

from torch import Tensor, nn


class MonotonicMixer(nn.Module):
    """sum_h w_h(z) elu(v_h(z) q + c_h(z)) - w_h(z) elu(c_h(z)) + w(z) q, with q the sum over nodes.

    Zero where the values of all nodes are; w, v >= 0.

    Parameters
    ----------
    state
        Size of the state z.
    width
        Of the hidden layer.
    """

    def __init__(self, state: int, width: int = 16) -> None:
        super().__init__()
        self.weights = nn.Sequential(nn.Linear(state, 32), nn.ReLU(), nn.Linear(32, 3 * width + 1))

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Return (R, S) the value of all.

        Parameters
        ----------
        values
            (R, S, N) values of the nodes under S node sets.
        state
            (R, Z).
        """
        out = self.weights(state)[:, None]  # (R, 1, 3 width + 1)
        outer, inner, shift = out[..., :-1].chunk(3, dim=-1)
        outer, inner = (
            nn.functional.softplus(outer) / outer.shape[-1],
            nn.functional.softplus(inner),
        )
        total = values.sum(dim=2, keepdim=True)  # (R, S, 1)
        bent = nn.functional.elu(inner * total + shift) - nn.functional.elu(shift)
        straight = nn.functional.softplus(out[..., -1]) * total[..., 0]
        mixed: Tensor = (outer * bent).sum(dim=-1) + straight
        return mixed


class SumMixer(nn.Module):
    """The sum over nodes."""

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Return (R, S) from (R, S, N)."""
        total: Tensor = values.sum(dim=2)
        return total


MIXERS = ("monotonic", "sum")


def mixer(name: str, state: int) -> nn.Module:
    """Return a mixer by name.

    Parameters
    ----------
    name
        One of `MIXERS`.
    state
        Size of the state.
    """
    return MonotonicMixer(state) if name == "monotonic" else SumMixer()
