"""The environment against the judge, the methods it mirrors, and numbers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learner_scenarios import Dice, episodes, instance, prepared, scenario

from finecast.learners.world.baselines import Replacement, Rolling, Static
from finecast.learners.world.draws import episodes_of, surrogate_episodes
from finecast.learners.world.environment import (
    Rollout,
    View,
    allowed_sources,
    deliver,
    keep_by_score,
    packed,
    placement_of,
    pull_by_level,
    roll,
    unpacked,
)
from finecast.learners.world.episodes import Episodes, joined_episodes
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.solvers.heuristics import replacement, rolling
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.joint import answer
from finecast.solvers.online import joined, observation_of, prepare_slots, prior_of, run_online
from finecast.solvers.placement.fill import fill
from finecast.solvers.placement.problem import slot_times
from finecast.solvers.prepared import Prepared
from finecast.solvers.restrictions import restricted_instance
from finecast.solvers.result import Termination


def judged(
    played: Episodes, rollout: Rollout, draw: int, problem: Instance, rates: Prepared
) -> None:
    """Assert that the judge finds no violation and the same slot delays to 1e-9."""
    found = answer(
        rates,
        placement_of(played, rollout, draw),
        method="test",
        lower_bound=0.0,
        termination=Termination.COMPLETED,
    )
    assert found.solution is not None
    evaluation = evaluate(problem, found.solution)
    assert evaluation.violations == ()
    assert evaluation.guaranteed
    delay = rollout.delay[draw].sum(dim=1).numpy()
    np.testing.assert_allclose(delay, evaluation.slot_delay, rtol=1e-9, atol=0)


@pytest.mark.parametrize("in_turn", [True, False])
def test_the_judge_finds_the_same_slot_delays(in_turn: bool) -> None:
    """Random pulls, most of them not allowed, and random keeps, with imperfect CSI."""
    played = roll(episodes(), Dice(7), in_turn=in_turn)
    for draw in range(2):
        judged(episodes(), played, draw, instance(draw), prepared(draw))


def test_the_judge_agrees_on_six_nodes() -> None:
    """Six nodes, full family of node sets, errors of 5% of the channels."""
    problem = scenario(nodes={"count": 6}, slots=2).generate(3)
    slots = prepare_slots(problem)
    draws = episodes_of([problem], bound=False)
    judged(draws, roll(draws, Dice(1)), 0, problem, joined(problem, slots))


@pytest.mark.parametrize("restrict", ["no-comp", "no-migration", "coarse,unicast"])
def test_the_judge_agrees_on_restricted_systems(restrict: str) -> None:
    """Where some node sets cannot serve a group, links are missing, or blocks are whole models."""
    problem = scenario(slots=2).generate(4)
    slots = prepare_slots(problem, restrict=restrict.split(","))
    problem = restricted_instance(problem, frozenset(restrict.split(",")))
    draws = episodes_of([scenario(slots=2).generate(4)], restrict=restrict.split(","), bound=False)
    if restrict == "no-comp":
        assert bool((draws.broadcast[0, 0, 0, 1:] == np.inf).any())
    judged(draws, roll(draws, Dice(1)), 0, problem, joined(problem, slots))


@pytest.mark.parametrize(
    ("mine", "options", "theirs"),
    [
        (Rolling(), {"rounds": 3}, rolling.Rolling(keep="in-turn")),
        (Rolling(), {"rounds": 3, "joint": "exact"}, rolling.Rolling()),
        (Replacement(), {"in_turn": False}, replacement.LeastRecentlyUsed()),
        (Replacement("frequency"), {}, replacement.LeastFrequentlyUsed(0.8)),
    ],
)
def test_baselines_are_the_methods_of_their_names(
    mine: Any, options: dict[str, Any], theirs: Any
) -> None:
    """The same delays slot by slot as the online methods, started from the same caches."""
    start = np.stack([theirs.place(prior_of(instance(draw))) for draw in range(2)])
    played = roll(episodes(), mine, start=torch.from_numpy(start), **options)
    for draw in range(2):
        problem, prior = instance(draw), prior_of(instance(draw))
        alone = prepare_slots(problem)
        views = (observation_of(problem, prior, t, slot) for t, slot in enumerate(alone))
        placement = run_online(theirs, prior, views)
        achieved = prepared(draw).achieved
        assert achieved is not None
        expected = sum(slot_times(achieved, placement))
        found = played.delay[draw].sum(dim=1).numpy()
        np.testing.assert_allclose(found, np.sum(expected, axis=1), rtol=1e-12)


def test_no_pull_of_ones_own_is_the_best_level_of_the_slot() -> None:
    """None, and the chain levels with nothing charged afterwards, are the rule `pull`."""
    slot = episodes().slot(0)
    cached = packed(episodes().start)
    named = pull_by_level(slot, cached, torch.zeros_like(slot.worth[:, 0]))
    given_none, given_levels = deliver(slot, cached, None), deliver(slot, cached, named)
    assert torch.equal(given_none.sender, given_levels.sender)
    assert torch.equal(given_none.delay, given_levels.delay)
    for draw in range(2):
        problem = prepare_slots(instance(draw))[0].achieved
        assert problem is not None
        expected = pull(problem, episodes().start[draw].numpy())
        np.testing.assert_array_equal(given_none.source[draw].numpy(), expected)


def test_every_forbidden_pull_becomes_nothing() -> None:
    """Against the definition, entry by entry."""
    slot, cached = episodes().slot(1), packed(episodes().start)
    nodes = slot.nodes
    shape = (slot.draws, nodes, slot.blocks)
    named = torch.randint(-2, nodes + 2, shape, generator=torch.Generator().manual_seed(0))
    kept = allowed_sources(slot, cached, named)
    some = 0
    for e, n, j in np.ndindex(*shape):
        source = int(named[e, n, j])
        holds = [bool(cached[e, j] >> m & 1) for m in range(nodes)]
        allowed = (
            0 <= source <= nodes
            and int(slot.group[e, j]) >= 0
            and not holds[n]
            and source != n
            and (source == nodes or holds[source])
        )
        some += allowed
        assert int(kept[e, n, j]) == (source if allowed else -1)
    assert some > 0


def test_a_block_that_nobody_has_or_pulls_is_fetched() -> None:
    """With empty caches and no pulls every needed block comes by its best level."""
    slot = episodes().slot(0)
    empty = torch.zeros((2, slot.blocks), dtype=torch.int64)
    nothing = torch.full((2, slot.nodes, slot.blocks), -1)
    found, best = deliver(slot, empty, nothing), deliver(slot, empty, None)
    assert torch.equal(found.source, best.source)
    assert torch.equal(found.delay, best.delay)
    assert bool((found.delay[slot.needed] > 0).all())
    assert bool(found.delay.isfinite().all())
    assert bool((found.delay[~slot.needed] == 0).all())


def test_a_pull_that_suffices_is_left_as_it_is() -> None:
    """One node pulls one block from the cloud: delay = size (link + broadcast by that node)."""
    slot = episodes().slot(0)
    j = int(slot.needed[0].nonzero()[0])
    empty = torch.zeros((2, slot.blocks), dtype=torch.int64)
    named = torch.full((2, slot.nodes, slot.blocks), -1)
    named[0, 1, j] = slot.nodes
    found = deliver(slot, empty, named)
    served = slot.broadcast[0, slot.group[0, j], 0b010]
    assert float(served) < np.inf
    expected = float(slot.size[0, j] * slot.link[0, -1, 1] + slot.size[0, j] * served)
    assert float(found.delay[0, j]) == pytest.approx(expected, rel=1e-15)
    assert int(found.sender[0, j]) == 0b010


def test_what_is_kept_by_hand() -> None:
    """Storage 10. Scores fall 5, 4, 3, 2; sizes 6, 5, 4, 1: 6 fits, 5 does not, 4 does, 1 not."""
    size = torch.tensor([[5.0, 6.0, 1.0, 4.0, 1.0, 1.0]], dtype=torch.float64)
    score = torch.tensor([[4.0, 5.0, 2.0, 3.0, 9.0, -1.0]])
    held = torch.tensor([[True, True, True, True, False, True]])
    kept = keep_by_score(size, torch.tensor([10.0], dtype=torch.float64), held, score)
    assert kept.tolist() == [[False, True, False, True, False, False]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 9))
def test_keeping_is_the_rule_of_the_methods(seed: int, rows: int, blocks: int) -> None:
    """Row by row `finecast.solvers.placement.fill.fill` on the positive scores; equal scores
    occur.
    """
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 6, (rows, blocks))
    storage = rng.integers(0, 15, rows)
    held = rng.random((rows, blocks)) < 0.7
    score = rng.integers(-2, 4, (rows, blocks)).astype(float)
    score[rng.random((rows, blocks)) < 0.1] = np.nan
    kept = keep_by_score(
        torch.from_numpy(size.astype(float)),
        torch.from_numpy(storage.astype(float)),
        torch.from_numpy(held),
        torch.from_numpy(score),
    )
    for row in range(rows):
        order = np.argsort(-np.nan_to_num(score[row], nan=-9.0), kind="stable")
        wanted = [j for j in order if held[row, j] and score[row, j] > 0]
        expected = fill(np.array(wanted, dtype=np.int64), size[row], int(storage[row]))
        np.testing.assert_array_equal(kept[row].numpy(), expected)


def test_in_turn_every_node_sees_those_before_it() -> None:
    """Pulls: what earlier nodes are to receive. Keeps: what earlier nodes have kept."""
    dice = Dice(5)
    played = roll(episodes(), dice)
    nodes, t = episodes().nodes, 1
    turns = dice.views[t * 2 * nodes : (t + 1) * 2 * nodes]
    cached = packed(played.cache[:, t])
    received = (played.source[:, t] >= 0).long()
    # Only where the nodes' own pulls were left as they are.
    names = [int(view.decided) for view, _ in turns]
    assert names == [0, 1, 3] * 2
    assert [n for _, n in turns] == [0, 1, 2] * 2
    view, _ = turns[2]
    before = cached | received[:, 0] | received[:, 1] << 1
    own = view.held == before
    assert bool((view.held & ~cached & ~0b011 == 0).all())
    assert bool(own[episodes().slot(t).needed].float().mean() > 0.4)
    view, _ = turns[5]
    kept = packed(played.cache[:, t + 1])
    assert torch.equal(view.kept & 0b011, kept & 0b011)
    assert torch.equal(view.others(2), kept & 0b011)
    assert torch.equal(view.held, cached | packed(played.source[:, t] >= 0))


def test_all_at_once_nobody_has_decided() -> None:
    """The other holders are then those that have the block."""
    dice = Dice(5)
    roll(episodes(), dice, in_turn=False)
    assert all(n is None and view.decided == 0 for view, n in dice.views)
    view, _ = dice.views[1]
    assert view.keeping
    assert torch.equal(view.others(1), view.held & ~0b010)


def test_a_rollout_is_the_same_again_and_alone() -> None:
    """Nothing random; padding, other draws of the batch and their order change nothing."""
    longer = surrogate_episodes(
        scenario(library={"synthetic": {"models": 9, "blocks": 17, "families": 3}}),
        [5],
        exponent=0.5,
        dtype=torch.float64,
    )
    batch = joined_episodes([episodes(), longer])
    whole = roll(batch, Rolling(), rounds=2)
    assert torch.equal(whole.delay, roll(batch, Rolling(), rounds=2).delay)
    turned = roll(batch.select([2, 1, 0]), Rolling(), rounds=2)
    assert torch.equal(whole.delay.flip(0), turned.delay)
    alone = roll(episodes(), Rolling(), rounds=2)
    assert torch.equal(whole.delay[:2, :, : episodes().blocks], alone.delay)
    assert bool((whole.delay[:2, :, episodes().blocks :] == 0).all())
    assert not bool(whole.cache[:2, :, :, episodes().blocks :].any())


def test_delays_stay_above_the_certified_bound() -> None:
    """Whatever the nodes do."""
    for policy in (Dice(0), Rolling(), Static(), Replacement()):
        assert bool((roll(episodes(), policy).total >= episodes().bound).all())


@pytest.mark.parametrize("in_turn", [True, False])
def test_a_stage_begins_once(in_turn: bool) -> None:
    """Before the first decision of every stage, however many turns and rounds it has."""
    stages = []

    class Noting(Rolling):
        def begin(self, view: View) -> None:
            assert view.decided == 0
            stages.append((view.slot.t, view.keeping))

    roll(episodes(), Noting(), in_turn=in_turn, rounds=2 if in_turn else 1)
    slots = range(episodes().slots)
    assert stages == [(t, keeping) for t in slots for keeping in (False, True)]


def test_node_sets_pack_and_unpack() -> None:
    """Bit n for node n."""
    cache = torch.tensor([[[True, False], [False, False], [True, True]]])
    assert packed(cache).tolist() == [[0b101, 0b100]]
    assert torch.equal(unpacked(packed(cache), 3), cache)
