"""Actors that leave what is kept to the joint rule: their scores are what it is given.

Node n scores a copy of block j beside the nodes K that keep it too by a logit, the saving per byte
over the temperature (`finecast.learners.algorithms.actors`):

    logit_n(K) = [v(K - n) - v(K + n)] + a_n + sum over m in K of b_nm

v are the tables, a_n and b_nm what the network says. The costs of node sets whose marginals these
scores are, b_nm and b_mn averaged, are

    G(K) = v(K) - sum over n in K of [a_n + noise_n + sum over m in K of b_nm / 2]

The joint rule chooses for all blocks and nodes by G. While actors explore, noise_n is the logistic
noise that nodes in turn add to their logits; else it is 0. Every node then learns from what it
scored beside the nodes that keep in the end.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from finecast.learners.algorithms.actors import ActorOptions, Actors
from finecast.learners.algorithms.noise import logistic
from finecast.learners.networks.observer import Observer
from finecast.learners.world.environment import JointRule, View
from finecast.learners.world.lookahead import Lookahead


class JointActors(Actors):
    """All nodes' policies, one network; parameters as in `Actors`. They decide in turn."""

    joint: JointRule = "batched"

    _noise: Tensor | None = None
    """(E, N, J) of what is kept in the slot, where they explore."""

    def begin(self, view: View) -> None:
        """Let the network look, as `Actors` do."""
        self._noise = None
        super().begin(view)

    def set_costs(self, view: View) -> Tensor:
        """Return G(K), (E, J, S), in temperatures."""
        slot, scores = view.slot, self.look.scores
        alone = scores.keep / self.temperature
        if self.generator is not None:
            self._noise = logistic(alone.shape, self.generator).to(alone.device)
            alone = alone + self._noise
        saved = alone[..., None] + self.look.company / (2.0 * self.temperature)  # (E, N, J, S)
        member = slot.member.T[:, None].to(saved.dtype)  # (N, 1, S)
        return self.table_costs(slot) - (saved * member).sum(dim=1)

    def note_kept(self, kept: Tensor) -> None:
        """Add to `turns` what every node scored beside the others that keep each block.

        Parameters
        ----------
        kept
            (E, J) int64 node sets that keep in the end.
        """
        if self._noise is None:  # the last slot, where nothing is scored
            return
        look = self.look
        for n in range(self._noise.shape[1]):
            others = kept & ~(1 << n)
            start = look.start[:, n].gather(2, others[..., None])[..., 0]
            self._note(True, n, look.seen.may_keep[:, n], others, start, self._noise[:, n])


def joint_actors_of(
    options: ActorOptions,
    network: nn.Module,
    values: Lookahead | None,
    generator: Generator | None = None,
) -> JointActors:
    """Return the actors of a network; with a generator they explore."""
    return JointActors(
        network,
        Observer(options.lookahead, values),
        temperature=options.temperature,
        in_turn=True,
        rounds=options.rounds,
        generator=generator,
    )
