"""The targets of a run with joint keep, against plain loops and all feasible keeps."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from fixed_source import FixedSource
from learner_scenarios import scenario

from finecast.learners.algorithms import hindsight, maasn, qmix
from finecast.learners.algorithms.hindsight_labels import joint_hindsight_of
from finecast.learners.algorithms.set_values import Rows, critic_view, set_costs, unit_of
from finecast.learners.world.baselines import Rolling
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import Delivery, View, packed, roll, step
from finecast.learners.world.joint import joint_prices
from finecast.learners.world.lookahead import lookahead_of
from finecast.learners.world.pool import Pool

LIBRARY = {"synthetic": {"models": 3, "blocks": 4, "families": 1, "total_gb": 1.0}}
SMALL = {"batch": 3, "width": 8, "embedding": 4}
CPU = torch.device("cpu")


@cache
def a_pool() -> Pool:
    """Return three draws of 2 nodes and 4 blocks."""
    draws = surrogate_episodes(scenario(nodes={"count": 2}, library=LIBRARY), range(3))
    return Pool(0, draws, lookahead_of(draws, steps=4)[0], 3)


def a_run(name: str, **options: object) -> tuple[Any, Pool]:
    """Return DCG or MAASN-DA after some steps, with a target network that says something."""
    source = FixedSource(a_pool())
    if name == "dcg":
        config = qmix.Config(mixing="sum", pairs=True, updates=4, **SMALL, **options)  # type: ignore[arg-type]
        learner: Any = qmix.Learner(config, source, seed=0, device=CPU)
    else:
        other = maasn.Config(play_every=1, target_rate=0.5, **SMALL, **options)  # type: ignore[arg-type]
        learner = maasn.Learner(other, source, seed=0, device=CPU)
    for _ in range(2 if name == "dcg" else 8):
        learner.step()
    return learner, a_pool()


@pytest.mark.parametrize("name", ["dcg", "maasn-da"])
def test_targets_are_the_joint_backup(name: str) -> None:
    """Every level and every subset in loops, at the prices of the slot's joint keep.

    Given the senders that were played, the targets before the pulls add up to at most what the best
    of all feasible keeps comes to: the backup is that of one answer for all blocks and nodes.
    """
    learner, pool = a_run(name)
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


@pytest.mark.parametrize("name", ["dcg", "maasn-da"])
def test_in_turn_and_joint_back_up_through_other_prices(name: str) -> None:
    """The option changes the targets, and only through the prices: none after the last slot."""
    learner, pool = a_run(name)
    config = learner.config
    for played in learner.replay.slots:
        slot = pool.episodes.select(played.draw).slot(played.t + 1)
        look = pool.values.select(played.draw).slot(played.t + 1)
        view = critic_view(slot, played.kept.long(), played.next_held.long())
        rows = Rows.where(slot.real)
        with torch.no_grad():
            joint = learner.targets(view, look, rows)
            learner.config = replace(config, keep="in-turn")
            in_turn = learner.targets(view, look, rows)
            learner.config = config
        last = slot.t == slot.slots - 1
        assert torch.allclose(joint, in_turn, atol=1e-6) == last


def test_labels_of_hindsight_are_the_joint_backup() -> None:
    """Backwards in loops along a played episode: every level, every subset, each slot's prices.

    At the prices of a slot, U of what was there adds up to at most what the best of all feasible
    keeps comes to, by the values in hindsight of that keep.
    """
    draws = a_pool().episodes
    held = draws.start.new_zeros((draws.draws, draws.slots, draws.blocks), dtype=torch.int64)

    def watch(t: int, cache: torch.Tensor, delivery: Delivery, keep: torch.Tensor) -> None:
        held[:, t] = delivery.sender

    roll(draws, Rolling(), joint="batched", watch=watch)
    after, cost = (table.double().numpy() for table in joint_hindsight_of(draws, held))
    scarce = 0
    for e, t in itertools.product(range(draws.draws), reversed(range(draws.slots))):
        slot = draws.slot(t)
        unit, member = float(slot.link[e, -1].mean()), slot.member.numpy()
        size, storage = slot.size[e].numpy(), slot.storage[e].numpy()
        # G: the level that is best in the next slot and after it.
        for j, k in itertools.product(range(slot.blocks), range(4)):
            expected = 0.0
            if t + 1 < slot.slots:
                coming, group = draws.slot(t + 1), int(draws.group[e, t + 1, j])
                levels = zip(coming.chain_sender[e, k], coming.chain_time[e, k])  # noqa: B905
                expected = after[e, t + 1, j, k] if group < 0 else min(
                    float(time + coming.broadcast[e, group, q]) + after[e, t + 1, j, int(q)]
                    for q, time in levels
                )  # fmt: skip
            assert cost[e, t, j, k] == pytest.approx(expected, rel=1e-4, abs=1e-4 * unit)
        # U: the best subset that has room, at prices of the joint keep of what is there.
        table = torch.from_numpy(cost[:, t] / unit).float()
        prices = joint_prices(slot, held[:, t], table)[e].double().numpy() * unit
        scarce += int((prices > 0.01 * unit).any())
        rented = cost[e, t] + member @ prices
        room = (size[:, None, None] <= np.where(member, storage, np.inf)).all(axis=2)
        rented = np.where(room, rented, np.inf)
        for j, q in itertools.product(range(slot.blocks), range(4)):
            expected = min(rented[j, k] for k in range(4) if not k & ~q)
            assert after[e, t, j, q] == pytest.approx(expected, rel=1e-3, abs=1e-3 * unit)
        # All feasible keeps.
        best = np.inf
        for sets in itertools.product(range(4), repeat=slot.blocks):
            inside = not any(k & ~int(q) for k, q in zip(sets, held[e, t], strict=True))
            if inside and (size @ member[list(sets)] <= storage).all():
                best = min(best, float(size @ cost[e, t, range(slot.blocks), list(sets)]))
        joint = size @ after[e, t, range(slot.blocks), held[e, t]] - prices @ storage
        assert joint <= best + 1e-3 * unit * float(size.sum())
    assert scarce > 2  # prices that say something


def test_joint_actors_keep_by_their_scores() -> None:
    """The marginals of the costs of sets are the logits; pairs of nodes count with their mean.

    With pairs that agree, a block that one node alone scores is kept by the order of the logits.
    """
    learner, pool = a_run("maasn-da")
    policy = learner.policy()
    slot, cached = pool.episodes.slot(1), packed(pool.episodes.start)
    view = View(slot, cached, cached, cached * 0, keeping=True)
    with torch.no_grad():
        policy.observer.begin(replace(view, in_turn=False))
        policy.begin(view)
        cost, logits = policy.set_costs(view), policy.look.logits
    shift = logits[:, 0, :, 0] - (cost[..., 0] - cost[..., 1])
    for n in range(2):
        alone = cost[..., 0] - cost[..., 1 << n]
        assert torch.allclose(logits[:, n, :, 0] - alone, shift[:, :1], atol=1e-3)
    # Beside the other node: the two logits lose the same on average as the costs say.
    lost = cost[..., 1] + cost[..., 2] - cost[..., 0] - cost[..., 3]
    mean = (logits[:, 0, :, 2] - logits[:, 0, :, 0] + logits[:, 1, :, 1] - logits[:, 1, :, 0]) / 2
    assert torch.allclose(mean, lost, atol=1e-3)
    assert float(lost.abs().max()) > 0.1


def test_joint_actors_learn_from_what_was_kept() -> None:
    """Every keeping turn has the other nodes that keep in the end, and the noise of its play."""
    learner, pool = a_run("maasn-da")
    actors = learner._actors(pool.values)
    with torch.no_grad():
        _, keep = step(pool.episodes.slot(1), pool.episodes.start, actors, joint="batched")
    actors.note_kept(packed(keep))
    turns = [turn for turn in actors.turns if turn.keeping]
    assert [turn.node for turn in turns] == [0, 1]
    for turn in turns:
        assert torch.equal(turn.others, packed(keep) & ~(1 << turn.node))
        kept = turn.rows.pick(keep[:, 1 - turn.node])
        assert torch.equal(turn.company[:, 0].bool(), kept)


@pytest.mark.parametrize("config", [qmix.Config, maasn.Config, hindsight.Config])
def test_an_unknown_keep_rule_is_refused(config: Any) -> None:
    """In one line."""
    with pytest.raises(ValueError, match="keep: 'both' is not allowed"):
        config(keep="both")
