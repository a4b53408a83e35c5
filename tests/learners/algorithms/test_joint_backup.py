"""The targets of a run with joint keep, against plain loops and all feasible keeps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from fixed_source import FixedSource
from learner_scenarios import scenario

from finecast.learners.algorithms import qmix
from finecast.learners.algorithms.set_values import Rows, critic_view, set_costs, unit_of
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.joint import joint_prices
from finecast.learners.world.lookahead import lookahead_of
from finecast.learners.world.pool import Pool

LIBRARY = {"synthetic": {"models": 3, "blocks": 4, "families": 1, "total_gb": 1.0}}
SMALL = {"batch": 3, "width": 8, "embedding": 4, "updates": 4}


def a_run() -> tuple[qmix.Learner, Pool]:
    """Return DCG after two steps on 2 nodes and 4 blocks."""
    draws = surrogate_episodes(scenario(nodes={"count": 2}, library=LIBRARY), range(3))
    pool = Pool(0, draws, lookahead_of(draws, steps=4)[0], 3)
    config = qmix.Config(mixing="sum", pairs=True, **SMALL)
    learner = qmix.Learner(config, FixedSource(pool), seed=0, device=torch.device("cpu"))
    learner.step(), learner.step()
    return learner, pool


def test_targets_are_the_joint_backup() -> None:
    """Every level and every subset in loops, at the prices of the slot's joint keep.

    Given the senders that were played, the targets before the pulls add up to at most what the best
    of all feasible keeps comes to: the backup is that of one answer for all blocks and nodes.
    """
    learner, pool = a_run()
    checked = 0
    for played in learner.replay.slots:
        episodes = pool.episodes.select(played.draw)
        look = pool.values.select(played.draw).slot(played.t + 1)
        slot = episodes.slot(played.t + 1)
        kept, held = played.kept.long(), played.next_held.long()
        view = critic_view(slot, kept, held)
        rows = Rows.where(slot.real)
        with torch.no_grad():
            found = learner.targets(view, look, rows).reshape(slot.draws, slot.blocks, 4).numpy()
            cost = set_costs(learner.target, view, None, rows).reshape(slot.draws, slot.blocks, 4)
        prices = joint_prices(slot, held, cost).double().numpy()
        cost, member, unit = cost.double().numpy(), slot.member.numpy(), unit_of(slot).numpy()
        size, storage = slot.size.numpy(), slot.storage.numpy()
        for e in range(slot.draws):
            rented = cost[e] + member @ prices[e]
            for j, k in itertools.product(range(slot.blocks), range(4)):
                if (size[e, j] > storage[e][member[k]]).any():
                    rented[j, k] = np.inf
            after = np.array(
                [
                    [min(rented[j, k] for k in range(4) if not k & ~q) for q in range(4)]
                    for j in range(slot.blocks)
                ]
            )
            for j, cached in itertools.product(range(slot.blocks), range(4)):
                expected, group = after[j, cached], int(slot.group[e, j])
                if group >= 0:
                    levels = zip(slot.chain_sender[e, cached], slot.chain_time[e, cached])  # noqa: B905
                    expected = min(
                        float(time + slot.broadcast[e, group, q]) / unit[e] + after[j, int(q)]
                        for q, time in levels
                    )
                assert found[e, j, cached] == pytest.approx(expected, rel=1e-4, abs=1e-4)
                checked += 1
            # All feasible keeps within the senders that were played.
            best = np.inf
            for sets in itertools.product(range(4), repeat=slot.blocks):
                inside = not any(k & ~int(q) for k, q in zip(sets, held[e], strict=True))
                if inside and (size[e] @ member[list(sets)] <= storage[e]).all():
                    best = min(best, float(size[e] @ cost[e, range(slot.blocks), list(sets)]))
            joint = size[e] @ after[range(slot.blocks), held[e]] - prices[e] @ storage[e]
            assert joint <= best + 1e-4 * float(size[e].sum())
    assert checked > 50


def test_in_turn_and_joint_back_up_through_other_prices() -> None:
    """The option changes the targets, and only through the prices: none after the last slot."""
    learner, pool = a_run()
    for played in learner.replay.slots:
        slot = pool.episodes.select(played.draw).slot(played.t + 1)
        look = pool.values.select(played.draw).slot(played.t + 1)
        view = critic_view(slot, played.kept.long(), played.next_held.long())
        rows = Rows.where(slot.real)
        with torch.no_grad():
            joint = learner.targets(view, look, rows)
            learner.config = qmix.Config(mixing="sum", pairs=True, keep="in-turn", **SMALL)
            in_turn = learner.targets(view, look, rows)
            learner.config = qmix.Config(mixing="sum", pairs=True, **SMALL)
        last = slot.t == slot.slots - 1
        assert torch.allclose(joint, in_turn, atol=1e-6) == last


def test_an_unknown_keep_rule_is_refused() -> None:
    """In one line."""
    with pytest.raises(ValueError, match="keep: 'both' is not allowed"):
        qmix.Config(keep="both")  # type: ignore[arg-type]
