"""The dynamic programme of `solvers.placement.mpc` on many draws at once.

    W_s(X) = lambda_s . X + P_s min over l of [tau_l(X) + b_s(Q_l(X)) + A_s(Q_l(X))]
                          + (1 - P_s) A_s(X),      A_s(Q) = min over X within Q of W_{s+1}(X)

Given the prices it does not depend on the caches, so it can be computed once for every slot of the
episodes and looked up ever after (`with_lookahead`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from learners.episodes import Episodes, Slot


@dataclass(frozen=True, eq=False)
class Lookahead:
    """Values of one slot, or with an axis T after E those of all slots.

    Attributes
    ----------
    after
        (E, C, S) A: least cost of the coming slots if these nodes have a block of the kind at the
        end of the slot, rent included, seconds per byte. `pull_by_level(slot, cached, after)` are
        the pulls of `mpc`.
    cost
        (E, C, S) W of the next slot less its rent: what keeping in these nodes costs; `mpc` keeps
        by its marginals per byte.
    price
        (E, H, N) storage prices lambda, seconds per byte.
    """

    after: Tensor
    cost: Tensor
    price: Tensor

    def slot(self, t: int) -> Lookahead:
        """Return the values of slot t."""
        return Lookahead(self.after[:, t], self.cost[:, t], self.price[:, t])


def programme(slot: Slot, price: Tensor) -> Lookahead:
    """Run the dynamic programme of a slot at given prices (E, H, N)."""
    raise NotImplementedError


def storage_prices(
    slot: Slot, cached: Tensor, *, steps: int = 40, start: Tensor | None = None
) -> Tensor:
    """Return prices (E, H, N) at which the expected bytes about fit the storage.

    Parameters
    ----------
    slot
        The slot.
    cached
        (E, J) int64 what is cached now.
    steps
        Subgradient steps.
    start
        (E, H, N) prices to start from; None for 0.
    """
    raise NotImplementedError


def mpc_marginals(
    slot: Slot, cached: Tensor, *, steps: int = 40, start: Tensor | None = None
) -> Lookahead:
    """Return the values at the prices that the caches lead to: `programme` at `storage_prices`."""
    return programme(slot, storage_prices(slot, cached, steps=steps, start=start))


def lookahead_of(episodes: Episodes, *, steps: int = 40) -> Lookahead:
    """Return the values of all slots, (E, T, ...), at the prices on the path of `mpc` itself."""
    raise NotImplementedError
