"""Features of what a policy sees, with what they share computed once per slot."""

from __future__ import annotations

from finecast.learners.networks.feature_basis import Basis, basis_of
from finecast.learners.networks.features import Features, features
from finecast.learners.world.environment import View
from finecast.learners.world.lookahead import Lookahead, mpc_marginals


class Observer:
    """Features of views; the basis of a slot, and its lookahead if used, are computed once.

    Parameters
    ----------
    lookahead
        Whether the marginals of `mpc` are among the features; else those are 0.
    values
        Lookahead of all slots of the episodes that are played; None: computed in every slot.
    steps
        Subgradient steps for the prices of a slot, where they are computed.
    """

    def __init__(
        self, lookahead: bool = True, values: Lookahead | None = None, *, steps: int = 40
    ) -> None:
        self.lookahead = lookahead
        self.given = values
        self.steps = steps
        self._seen: View | None = None
        self._values: Lookahead | None = None
        self._basis: Basis | None = None

    def values(self, view: View) -> Lookahead | None:
        """Return the lookahead of the view's slot; None if none is used."""
        self._look(view)
        return self._values

    def __call__(self, view: View, n: int | None) -> Features:
        """Return the features of node n, or of all nodes."""
        self._look(view)
        return features(view, n, self._values, self._basis)

    def _look(self, view: View) -> None:
        seen = self._seen
        if seen is not None and view.slot is seen.slot and view.cached is seen.cached:
            return
        self._seen = view
        if not self.lookahead:
            self._values = None
        elif self.given is not None:
            self._values = self.given.slot(view.slot.t)
        else:
            self._values = mpc_marginals(view.slot, view.cached, steps=self.steps)
        self._basis = basis_of(view, self._values)
