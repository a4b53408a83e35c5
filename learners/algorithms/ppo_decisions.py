"""What was decided in the stages that were played, and how likely it was: the rows that PPO learns.

Per block a node pulls from a categorical distribution. What it keeps is a Bernoulli choice for each
block through the projection: given the noise of the other blocks it keeps one with probability
sigmoid(logit - margin), margin the noisy logit that it has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from finecast.learners.algorithms.actors import keep_logits, pull_logits
from finecast.learners.algorithms.ppo_episodes import Stage
from finecast.learners.networks.action_semantics import Embedded, Scores
from finecast.learners.networks.features import Features
from finecast.learners.networks.whole import Cells, WholeNetwork


@dataclass(frozen=True, eq=False)
class Decisions:
    """Choices of one kind, all rows (R, ...) of all turns.

    Attributes
    ----------
    keeping
        Of keeping, else of pulling.
    place
        (R,) int64 which of all stages of all draws, side by side as they were played.
    node, block
        (R,) int64 who decided, about what.
    company
        (R, N - 1) 1 for the other nodes that had decided to keep or to receive the block. For a
        sequence model, -1 for those that had decided not to.
    start
        (R, A) logits without the network: of not keeping, 0, and of keeping, less the margin; or of
        the other nodes, the cloud and nothing.
    choice
        (R,) int64 of A.
    advantage
        (R,) of mean 0 and standard deviation 1.
    weight
        (R,) size over the mean size of the draw's blocks.
    """

    keeping: bool
    place: Tensor
    node: Tensor
    block: Tensor
    company: Tensor
    start: Tensor
    choice: Tensor
    advantage: Tensor
    weight: Tensor

    @property
    def cells(self) -> Cells:
        """The (place, node, block) cells."""
        return Cells(self.place, self.node, self.block)

    def select(self, index: Tensor) -> Decisions:
        """Return some of the rows, by number or by a bool for each."""
        return Decisions(self.keeping, **{name: getattr(self, name)[index] for name in _COLUMNS})


_COLUMNS = ("place", "node", "block", "company", "start", "choice", "advantage", "weight")


def decisions(
    actor: nn.Module,
    stages: Sequence[Stage],
    advantage: Tensor,
    keeping: bool,
    temperature: float,
) -> Decisions | None:
    """Return all choices of one kind; None if there are none.

    Parameters
    ----------
    actor
        The network that played.
    stages
        What was played.
    advantage
        (S, E, N or 1, J or 1).
    keeping
        Which kind.
    temperature
        Units of saving that a logit stands for.
    """
    parts = []
    for number, (stage, stage_advantage) in enumerate(zip(stages, advantage, strict=True)):
        if stage.keeping != keeping:
            continue
        draws, nodes, blocks = stage.seen.own.shape[:3]
        of_nodes = stage_advantage.expand(-1, nodes, blocks)
        weight = stage.share * stage.seen.real.sum(dim=1, keepdim=True)
        look = looked(actor, stage.seen)
        for turn in stage.turns:
            rows = turn.rows
            cells = Cells(rows.draw, torch.full_like(rows.draw, turn.node), rows.block)
            scores = scores_at(actor, look, cells, turn.company)
            if keeping:
                # A Bernoulli choice: the noisy logit against the margin of the projection.
                kept = cells.pick(stage.kept)
                logits = turn.start + keep_logits(scores, turn.company, temperature) + turn.noise
                margin = margins(logits, kept, rows.draw)
                over = turn.start - margin
                start, choice = torch.stack([torch.zeros_like(over), over], 1), kept.long()
            else:
                # A categorical choice: the largest of the noisy logits.
                start = turn.start
                learnt = pull_logits(scores, turn.company, temperature)
                choice = (start + learnt + turn.noise).argmax(dim=1)
            of_turn = Decisions(
                keeping,
                place=number * draws + cells.draw,
                node=cells.node,
                block=cells.block,
                company=turn.company,
                start=start,
                choice=choice,
                advantage=cells.pick(of_nodes),
                weight=rows.pick(weight),
            )
            # Where all blocks fit the storage there is no choice.
            parts.append(of_turn.select(margin.isfinite()) if keeping else of_turn)
    if not sum(len(part.choice) for part in parts):
        return None
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in _COLUMNS}
    joined = Decisions(keeping, **columns)
    # Advantages of mean 0 and standard deviation 1, over bytes.
    gain, weight = joined.advantage, joined.weight
    mean = (weight * gain).sum() / weight.sum()
    spread = ((weight * (gain - mean) ** 2).sum() / weight.sum()).sqrt()
    return replace(joined, advantage=(gain - mean) / (spread + 1e-6))


def looked(actor: nn.Module, seen: Features) -> Features | Embedded:
    """Return what the scores of all cells of some draws follow from."""
    return actor.embed(seen) if isinstance(actor, WholeNetwork) else seen


def scores_at(actor: nn.Module, look: Features | Embedded, cells: Cells, company: Tensor) -> Scores:
    """Return the scores of R cells from what `looked` returned.

    Parameters
    ----------
    actor
        The network.
    look
        What it made of its draws.
    cells
        R of them.
    company
        (R, N - 1) what the other nodes have decided.
    """
    if isinstance(look, Embedded):
        assert isinstance(actor, WholeNetwork)
        return actor.at(look, cells, company)
    scores: Scores = actor(cells.seen(look))
    return scores


def margins(logits: Tensor, kept: Tensor, draw: Tensor) -> Tensor:
    """Return (R,) the noisy logit that decides for each block, given the noise of the others.

    For a dropped block it is the lowest that was kept. For a kept one it is the highest that was
    dropped below all that were kept. It is infinite where all fit.

    Parameters
    ----------
    logits
        (R,) with noise.
    kept
        (R,) bool.
    draw
        (R,) int64 whose storage it is.
    """
    if not len(draw):
        return logits
    infinite = torch.full((int(draw.max()) + 1,), torch.inf, device=draw.device)

    def of_draws(values: Tensor, reduction: str) -> Tensor:
        start = infinite if reduction == "amin" else -infinite
        return start.scatter_reduce(0, draw, values, reduction)[draw]

    lowest_kept = of_draws(torch.where(kept, logits, torch.inf), "amin")
    below = ~kept & (logits < lowest_kept)
    highest_below = of_draws(torch.where(below, logits, -torch.inf), "amax")
    dropped = torch.zeros_like(infinite).index_add(0, draw, (~kept).float())[draw]
    margin = torch.where(kept & (highest_below > -torch.inf), highest_below, lowest_kept)
    return torch.where(dropped > 0, margin, torch.inf)


def log_chances(
    actor: nn.Module, look: Features | Embedded, kind: Decisions, temperature: float
) -> Tensor:
    """Return (R, A) log-probabilities of the choices, from what `looked` returned."""
    scores = scores_at(actor, look, kind.cells, kind.company)
    if kind.keeping:
        keep = keep_logits(scores, kind.company, temperature)
        learnt = torch.stack([torch.zeros_like(keep), keep], dim=1)
    else:
        learnt = pull_logits(scores, kind.company, temperature)
    return torch.log_softmax(kind.start + learnt, dim=1)


def chosen(log: Tensor, choice: Tensor) -> Tensor:
    """Return (R,) the entries of log (R, A) at choice (R,)."""
    return log.gather(1, choice[:, None])[:, 0]


def compounded(kind: Decisions, log_ratio: Tensor, updated: Tensor) -> Tensor:
    """Return (R,) the product of the ratios of all updated nodes in the same place and block.

    M = product over updated nodes m of  pi_m(a_m) / old pi_m(a_m)

    HAPPO multiplies a node's advantage by it (Kuba et al., ICLR 2022, arXiv 2109.11251): the
    advantage of what the node does after the others have moved. It is 1 where none of them decided.

    Parameters
    ----------
    kind
        What was decided.
    log_ratio
        (R,) log of the ratio of the chance now and when it was played.
    updated
        (N,) bool.
    """
    cell = kind.place * (int(kind.block.max()) + 1) + kind.block
    total = torch.zeros(int(cell.max()) + 1, device=cell.device)
    return total.index_add(0, cell, log_ratio * updated[kind.node])[cell].exp()
