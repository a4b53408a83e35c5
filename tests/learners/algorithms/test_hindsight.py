"""Hindsight value regression: labels against weak duality and exact optima, and what is learned."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from fixed_source import FixedSource
from learner_scenarios import episodes, scenario

from finecast.learners.algorithms.hindsight import Config, Learner, trained
from finecast.learners.algorithms.hindsight_labels import Hindsight, hindsight_of
from finecast.learners.learner import play
from finecast.learners.registry import learner_kind
from finecast.learners.weights import load_tensors, tensors_of
from finecast.learners.world.baselines import Replacement, Rolling
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import roll
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import Lookahead, Planned, lookahead_of
from finecast.learners.world.pool import Pool

CPU = torch.device("cpu")
SMALL = {"width": 16, "embedding": 8, "draws": 4, "batch": 256, "decay_steps": 20}


@cache
def drawn(count: int = 6) -> Episodes:
    """Return closed-form episodes of the small scenario, with more users that repeat themselves."""
    made = scenario(slots=8, users={"count": 6}, demand={"persistence": 0.9})
    return surrogate_episodes(made, range(count), exponent=0.5)


@cache
def labelled() -> Hindsight:
    """Return the values in hindsight of those episodes."""
    return hindsight_of(drawn())


@cache
def pool() -> Pool:
    """Return the episodes with the lookahead of `mpc`."""
    return Pool(0, drawn(), lookahead_of(drawn(), steps=8)[0], drawn().draws)


def learner(seed: int = 0, values: Lookahead | None = None, **options: object) -> Learner:
    """Return a small learner on the pool, or on the pool with other tables."""
    own = pool() if values is None else Pool(0, drawn(), values, drawn().draws)
    config = Config(**{**SMALL, **options})  # type: ignore[arg-type]
    return Learner(config, FixedSource(own), seed=seed, device=CPU)


def test_it_is_registered() -> None:
    """The name that users give finds the module."""
    assert learner_kind("hindsight").load().Config is Config


def test_dual_is_below_every_play_and_greedy_at_its_prices_comes_near() -> None:
    """Weak duality at any prices; and prices that are any good say what to keep."""
    dual = labelled().dual
    for player, rounds in ((Replacement(), 1), (Rolling(), 3), (Planned(labelled().values), 3)):
        assert (roll(drawn(), player, rounds=rounds).total >= dual * (1 - 1e-5)).all()
    greedy = roll(drawn(), Planned(labelled().values), rounds=3).total.mean()
    assert greedy < roll(drawn(), Rolling(), rounds=3).total.mean()
    assert greedy < 1.15 * dual.mean()


def test_more_steps_raise_the_dual() -> None:
    """The subgradient goes the right way: prices of 0 give less, 40 steps more than 4."""
    duals = [float(hindsight_of(drawn(), steps=steps).dual.mean()) for steps in (2, 8, 60)]
    assert duals[0] < duals[1] < duals[2]


def test_with_room_for_everything_the_values_are_exact() -> None:
    """Without scarcity the prices are 0 and the greedy play is optimal: it attains the dual.

    The true episodes too: the dynamic programme agrees with what the environment charges.
    """
    for given in (drawn(), episodes(2)):
        room = given.size.sum(dim=1, keepdim=True).expand_as(given.storage)
        ample = replace(given, storage=room)
        found = hindsight_of(ample, steps=10)
        assert float(found.values.price.abs().max()) == 0.0
        total = roll(ample, Planned(found.values), rounds=1).total
        torch.testing.assert_close(total, found.dual, rtol=1e-5, atol=0.0)


def test_values_end_with_the_episode() -> None:
    """After the last slot nothing is worth anything; before it more copies never cost more."""
    values = labelled().values
    assert float(values.after[:, -1].abs().max()) == 0.0
    assert float(values.cost[:, -1].abs().max()) == 0.0
    assert (values.after[..., 0] >= values.after[..., -1]).all()
    assert float(values.after[:, 0].max()) > 0.0


@pytest.mark.parametrize("mpc", [True, False])
def test_at_the_start_it_plays_as_the_tables_say(mpc: bool) -> None:
    """The heads start at 0: `mpc` with its tables, `rolling` without."""
    at_start = play(drawn(), learner(lookahead=mpc).policy(pool().values)).total
    fixed = Planned(pool().values) if mpc else Rolling()
    torch.testing.assert_close(at_start, roll(drawn(), fixed, joint="batched").total)
    in_turn = play(drawn(), learner(lookahead=mpc, keep="in-turn").policy(pool().values)).total
    torch.testing.assert_close(in_turn, roll(drawn(), fixed, rounds=3).total)


def test_nothing_is_left_to_learn_where_the_tables_are_the_labels() -> None:
    """The residual's target is label less table at the final context: 0 if they are the same."""
    same = learner(values=labelled().values, keep="in-turn")
    assert same.step()["loss_of_tables"] == 0.0
    assert learner().step()["loss_of_tables"] > 0.0


def test_the_target_is_the_marginal_in_hindsight_where_there_are_no_tables() -> None:
    """Without `mpc` a pull's target is A(Q - n) - A(Q + n) at the senders that were played."""
    one = learner(lookahead=False, draws=6, keep="in-turn")
    labels = one._labels_of(pool())
    found, _ = one._play(pool(), torch.arange(6))
    pulls = found.target[~found.keeping]
    played = roll(drawn(), one.policy(pool().values), rounds=3)
    expected = []
    for t in range(drawn().slots):
        slot = drawn().slot(t)
        sender = played.cache[:, t] | (played.source[:, t] >= 0)
        for e in range(6):
            unit = float(slot.link[e, -1].mean())  # the mean time from the cloud
            for n in range(slot.nodes):
                for j in slot.needed[e].nonzero()[:, 0].tolist():
                    without = sum(1 << m for m in range(slot.nodes) if m != n and sender[e, m, j])
                    table = labels.after[e, t, slot.kind[e, j]].double()
                    expected.append(float(table[without] - table[without | 1 << n]) / unit)
    torch.testing.assert_close(pulls, torch.tensor(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("keep", ["joint", "in-turn"])
def test_it_learns(keep: str) -> None:
    """On its own training draws the loss falls below that of the tables."""
    one = learner(lookahead=False, actor_rate=5e-3, passes=2.0, keep=keep)
    rows = [one.step() for _ in range(12)]
    left = [row["loss"] / row["loss_of_tables"] for row in rows]
    assert sum(left[-3:]) / 3 < 0.9
    assert sum(left[-3:]) < sum(left[:3])


@pytest.mark.parametrize("keep", ["joint", "in-turn"])
def test_what_is_resumed_ends_with_the_same_weights(keep: str) -> None:
    """Parts and counters are all that a step depends on, and the seed matters."""
    whole = learner(keep=keep)
    for _ in range(4):
        whole.step()
    first, second = learner(keep=keep), learner(keep=keep)
    for _ in range(2):
        first.step()
    load_tensors(second.parts(), tensors_of(first.parts()))
    second.load_extra(*first.extra())
    for _ in range(2):
        second.step()
    expected, found = tensors_of(whole.parts()), tensors_of(second.parts())
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    other = learner(seed=1, keep=keep)
    assert not torch.equal(
        tensors_of(other.parts())["policy/own.weight"], found["policy/own.weight"]
    )


def test_a_checkpoint_plays_as_the_learner_and_on_other_nodes_and_blocks() -> None:
    """One policy serves any N and J, and computes its own lookahead where none is given."""
    one = learner()
    one.step()
    tensors = {k: v for k, v in tensors_of(one.parts()).items() if k.startswith("policy")}
    again = trained(one.config, tensors, pool().values)
    same = play(drawn(), one.policy(pool().values)).total
    assert torch.equal(play(drawn(), again).total, same)
    larger = scenario(
        nodes={"count": 4}, library={"synthetic": {"models": 8, "blocks": 20, "families": 2}}
    )
    other = surrogate_episodes(larger, [0], exponent=0.5)
    assert play(other, trained(one.config, tensors)).total.isfinite().all()
    with pytest.raises(ValueError, match="another architecture"):
        trained(Config(width=8), tensors)


def test_bad_options_are_refused_in_one_line() -> None:
    """Range errors name the option and its value."""
    with pytest.raises(ValueError, match="rounds: 0 is not allowed"):
        Config(rounds=0)
    with pytest.raises(ValueError, match="label_steps: 1 is not allowed"):
        Config(label_steps=1)
