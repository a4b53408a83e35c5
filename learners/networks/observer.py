"""Features of what a policy sees, with what they share computed once a slot."""

from __future__ import annotations

from finecast.learners.networks.feature_basis import Basis, basis_of
from finecast.learners.networks.features import Features, features
from finecast.learners.networks.raw_features import raw_features
from finecast.learners.world.environment import View
from finecast.learners.world.lookahead import Lookahead, mpc_marginals


class Observer:
    """Makes the features of views; `begin` is called first in every slot.

    Parameters
    ----------
    lookahead
        Whether the marginals of `mpc` are among the features; else those are 0.
    given
        Lookahead of all slots of the episodes that are played; None: computed in every slot.
    steps
        Subgradient steps for the prices of a slot, where they are computed.
    raw
        Leave out what rests on expected tables (`finecast.learners.networks.raw_features`).

    Attributes
    ----------
    values
        Lookahead of the slot; None if none is used.
    basis
        What all features of the slot share.
    """

    def __init__(
        self,
        lookahead: bool = True,
        given: Lookahead | None = None,
        *,
        steps: int = 40,
        raw: bool = False,
    ) -> None:
        self.lookahead = lookahead
        self.raw = raw
        self.given = given
        self.steps = steps
        self.values: Lookahead | None = None
        self.basis: Basis | None = None

    def begin(self, view: View) -> None:
        """Compute what all views of a slot share, from a view of it."""
        if self.lookahead and self.given is not None:
            self.values = self.given.slot(view.slot.t)
        elif self.lookahead:
            self.values = mpc_marginals(view.slot, view.cached, steps=self.steps)
        self.basis = basis_of(view, self.values)

    def __call__(self, view: View) -> Features:
        """Return the features of all nodes."""
        seen = features(view, None, self.values, self.basis)
        return raw_features(seen) if self.raw else seen
