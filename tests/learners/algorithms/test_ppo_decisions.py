"""What PPO learns from is what was played; HAPPO's ratios are products over the nodes before."""

from __future__ import annotations

import pytest
import torch
from learner_scenarios import episodes
from two_slots import source

from finecast.learners.algorithms import ppo
from finecast.learners.algorithms.actors import keep_logits
from finecast.learners.algorithms.architectures import players_of
from finecast.learners.algorithms.ppo_decisions import (
    Decisions,
    compounded,
    decisions,
    looked,
    scores_at,
)
from finecast.learners.algorithms.ppo_episodes import Stage, play_with
from finecast.learners.learner import play
from finecast.learners.networks.whole import Cells
from finecast.learners.registry import learner_kind
from finecast.learners.world.environment import keep_by_score

SMALL = {"batch": 2, "width": 8, "embedding": 4}


def learner_of(name: str, **options) -> ppo.Learner:
    """Return a learner of two draws of three nodes, whose weights are anything."""
    config = learner_kind(name).config({**SMALL, **options})
    learner = ppo.Learner(config, source(episodes()), seed=0, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    for parameter in learner.actor.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return learner


def explored(learner: ppo.Learner) -> list[Stage]:
    """Return what it played with exploration, of all draws."""
    pool = learner.source.at(0)
    actors = players_of(learner.config, learner.actor, pool.values, learner.generator)
    with torch.no_grad():
        return play_with(actors, pool.episodes, pool.values)[0]


@pytest.mark.parametrize("name", ["mappo", "mat", "graph"])
@pytest.mark.parametrize("options", [{}, {"rounds": 1}, {"in_turn": False}])
def test_learns_from_what_was_played(name, options):
    """Scored anew, with its noise, every decision to keep comes out as it was taken.

    A sequence model that learned under other decisions of the nodes before, or a graph under other
    users, than those that it played with would find other blocks kept.
    """
    learner = learner_of(name, **options)
    stages = explored(learner)
    draws = learner.source.at(0).episodes
    compared = 0
    for stage in (stage for stage in stages if stage.keeping):
        look = looked(learner.actor, stage.seen)
        for turn in stage.turns:
            rows = turn.rows
            cells = Cells(rows.draw, torch.full_like(rows.draw, turn.node), rows.block)
            scores = scores_at(learner.actor, look, cells, turn.company)
            learnt = keep_logits(scores, turn.company, learner.config.temperature)
            logits = torch.full(draws.size.shape, -torch.inf)
            logits[rows.draw, rows.block] = (turn.start + learnt + turn.noise).detach()
            held = logits > -torch.inf
            storage = draws.storage[:, turn.node]
            kept = keep_by_score(draws.size, storage, held, logits.double() + 1e6)
            assert torch.equal(kept, stage.kept[:, turn.node])
            compared += int((held & ~kept).sum())
    assert compared > 10


def test_happo_multiplies_the_ratios_of_the_nodes_before():
    """Of those updated that decided on the same block in the same place, and of no other."""
    place = torch.tensor([0, 0, 0, 0, 1, 1])
    node = torch.tensor([0, 1, 2, 0, 0, 2])
    block = torch.tensor([3, 3, 3, 0, 3, 3])
    ratio = torch.tensor([2.0, 5.0, 7.0, 11.0, 13.0, 17.0])
    rows = {"start": torch.zeros(6, 2), "choice": place, "advantage": ratio, "weight": ratio}
    kind = Decisions(True, place, node, block, company=torch.zeros(6, 2), **rows)
    nobody, two = torch.tensor([False] * 3), torch.tensor([True, True, False])
    assert torch.equal(compounded(kind, ratio.log(), nobody), torch.ones(6))
    found = compounded(kind, ratio.log(), two)
    torch.testing.assert_close(found, torch.tensor([10.0, 10.0, 10.0, 11.0, 13.0, 13.0]))


def test_happo_learns_from_one_node_after_another():
    """Every decision once, in one pass; the first has its own advantages, later ones others."""
    learner = learner_of("happo", actor_rate=0.05)
    stages = explored(learner)
    with torch.no_grad():
        advantage = torch.stack([stage.base - stage.base.mean() for stage in stages])[:, :, None]
        kind = decisions(learner.actor, stages, advantage, True, learner.config.temperature)
    assert kind is not None
    seen = ppo.joined_features([stage.seen for stage in stages])
    with torch.no_grad():
        old = learner._log_chance_of_choice(seen, kind)
    factors, passes = [], []
    for (of_node,), _ in learner._passes(seen, [kind], [old]):
        (n,) = of_node.node.unique().tolist()
        passes.append(n)
        factors.append(of_node.advantage / kind.advantage[kind.node == n])
        for parameter in learner.actor.parameters():  # an update
            parameter.data *= 1.2
    assert sorted(passes) == [0, 1, 2]
    torch.testing.assert_close(factors[0], torch.ones_like(factors[0]))
    assert float((factors[1] - 1.0).abs().max()) > 1e-3
    # The last factor by hand, from chances now and then of the two nodes before it.
    with torch.no_grad():
        for parameter in learner.actor.parameters():
            parameter.data /= 1.2
        ratio = (learner._log_chance_of_choice(seen, kind) - old).exp()
    mine = kind.node == passes[2]
    rows = zip(kind.place[mine].tolist(), kind.block[mine].tolist(), strict=True)
    for (place, block), factor in zip(rows, factors[2].tolist(), strict=True):
        same = (kind.place == place) & (kind.block == block) & ~mine
        assert factor == pytest.approx(float(ratio[same].prod()), rel=1e-3)


@pytest.mark.parametrize("name", ["mat", "graph"])
def test_all_at_once_is_served(name):
    """Nodes that decide at once have no decisions before them."""
    learner = learner_of(name, in_turn=False)
    learner.step()
    assert bool(play(episodes(), learner.policy()).total.isfinite().all())


def test_a_mask_of_places_changes_no_chance():
    """A network of whole draws gives each row the same chance, whichever places it looks at."""
    learner = learner_of("mat")
    stages = explored(learner)
    with torch.no_grad():
        zero = torch.zeros((len(stages), 2, 1, 1))
        kind = decisions(learner.actor, stages, zero, True, 0.05)
        seen = ppo.joined_features([stage.seen for stage in stages])
        places = torch.arange(len(seen.own))
        (whole,) = learner._log_chances(seen, places, [kind])
        part = torch.tensor([7, 2])
        rows = torch.isin(kind.place, part)
        (some,) = learner._log_chances(seen, part, [kind.select(rows)])
    torch.testing.assert_close(whole[rows], some)
