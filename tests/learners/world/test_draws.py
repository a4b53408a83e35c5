"""Episodes: what is known when, true and surrogate rates, and what is refused."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from learner_scenarios import episodes, instance, prepared, scenario

from finecast.learners.world.draws import (
    _forecasts,
    episodes_of,
    fitted_exponent,
    slot_of,
    surrogate_episodes,
    surrogate_of,
)
from finecast.learners.world.episodes import (
    EPISODE_TENSORS,
    SLOT_TENSORS,
    Slot,
    joined_episodes,
)
from finecast.problem.demand import forecast
from finecast.problem.instance import user_groups
from finecast.solvers.heuristics.expected import group_exponent, kinds, user_reach
from finecast.solvers.online import observation_of, prepare_slots, prior_of
from finecast.solvers.workers import Workers


def test_a_slot_is_what_the_online_method_observes() -> None:
    """`slot_of` of the observation of slot t equals `Episodes.slot(t)`, field by field."""
    problem, prior = instance(), prior_of(instance())
    alone = prepare_slots(problem)
    whole = episodes().select([0])
    for t in (0, 3):
        seen = slot_of(observation_of(problem, prior, t, alone[t]), dtype=torch.float64)
        known = whole.slot(t)
        assert (seen.t, seen.slots) == (t, 4)
        for field in fields(Slot):
            if field.name in ("t", "slots", "beliefs"):
                continue
            mine, theirs = getattr(seen, field.name), getattr(known, field.name)
            cut = tuple(slice(size) for size in mine.shape)  # rows of groups and kinds are padded
            assert torch.equal(mine, theirs[cut]), field.name


@pytest.mark.parametrize("surrogate", [False, True])
def test_a_slot_knows_nothing_of_later_ones(surrogate: bool) -> None:
    """Other requests and channels from slot 2 on leave slots 0 and 1 as they were."""
    one, other = instance(0), scenario().generate(11)
    changed = replace(
        one,
        requests=np.concatenate([one.requests[:2], (one.requests[2:] + 1) % 6]),
        channel_estimate=np.concatenate([one.channel_estimate[:2], other.channel_estimate[2:]]),
        channel_error=np.concatenate([one.channel_error[:2], other.channel_error[2:]]),
        channel_true=np.concatenate([one.channel_true[:2], other.channel_true[2:]]),
    )
    if surrogate:
        before, after = surrogate_of(one, 0.5), surrogate_of(changed, 0.5)
    else:
        before = episodes_of([one], bound=False)
        after = episodes_of([changed], bound=False)
    assert torch.equal(before.start, after.start)
    for name in SLOT_TENSORS:
        mine, theirs = getattr(before, name), getattr(after, name)
        cut = tuple(slice(min(a, b)) for a, b in zip(mine.shape, theirs.shape, strict=True))
        assert torch.equal(mine[cut][:, :2], theirs[cut][:, :2]), name
    assert not torch.equal(before.requests[:, 2:], after.requests[:, 2:])


def test_expected_tables_are_those_of_the_methods() -> None:
    """`worth` is the expected cost per kind; after the end there is nothing to expect."""
    draws = episodes().select([0])
    assert bool((draws.worth[:, -1] == 0).all())
    assert bool((draws.need[:, -1] == 0).all())
    assert bool((draws.need[:, -2, 1:] == 0).all())
    assert bool((draws.need[:, -2, 0] > 0).any())
    assert bool((draws.worth[..., 0] >= draws.worth[..., -1]).all())


def test_forecasts_of_all_slots_are_the_demand_model_s() -> None:
    """Against `finecast.problem.demand.forecast`, slot by slot, with users that are not always
    active.
    """
    demand, requests = instance().demand, instance().requests
    coming = _forecasts(demand, requests, 3)
    for t in range(4):
        expected = forecast(demand, requests[: t + 1])[:3]
        np.testing.assert_allclose(coming[t, : len(expected)], expected, atol=1e-15)
        assert not coming[t, len(expected) :].any()


def test_the_surrogate_expects_what_the_methods_expect() -> None:
    """With the exponent that the methods fit in a slot, its expected tables are theirs."""
    problem, prior = instance(), prior_of(instance())
    true = episodes().select([0])
    alone = prepare_slots(problem)
    for t in range(3):
        seen = observation_of(problem, prior, t, alone[t])
        exponent = group_exponent(seen, user_reach(seen))
        draw = surrogate_of(problem, exponent, dtype=torch.float64)
        coming = min(3, 4 - t - 1)
        for name in ("need", "worth", "audience"):
            mine, theirs = getattr(draw, name)[0, t, :coming], getattr(true, name)[0, t, :coming]
            theirs = theirs[:, : mine.shape[1]]  # kinds are padded
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-30, err_msg=name)
        for name in ("group", "requests", "recency", "frequency"):
            assert torch.equal(getattr(draw, name)[0, t], getattr(true, name)[0, t]), name
        np.testing.assert_allclose(draw.reach[0, t], true.reach[0, t], rtol=1e-12)
        for name in ("size", "storage", "link", "kind", "chain_sender", "fastest", "start"):
            assert torch.equal(getattr(draw, name), getattr(true, name)), name


def test_surrogate_rates_are_exact_for_one_user_and_monotone() -> None:
    """Alone, a user has the closed form; more nodes never take longer."""
    draw, true = surrogate_of(instance(), 0.5), episodes().select([0])
    found = 0
    for t in range(4):
        groups, _ = user_groups(instance().wanted[t])
        for g in np.flatnonzero(groups.sum(axis=1) == 1):
            np.testing.assert_allclose(draw.broadcast[0, t, g], true.broadcast[0, t, g], rtol=1e-6)
            found += 1
    assert found > 0
    for n in range(3):
        without = [q for q in range(1, 8) if not q >> n & 1]
        more = [q | 1 << n for q in without]
        assert bool((draw.broadcast[..., more] <= draw.broadcast[..., without]).all())


def test_the_exponent_is_fitted_to_true_rates() -> None:
    """That of slot 0; of several draws, when none is given, the mean."""
    problem, prior = instance(), prior_of(instance())
    seen = observation_of(problem, prior, 0, prepare_slots(problem)[0])
    expected = group_exponent(seen, user_reach(seen))
    assert fitted_exponent(problem) == pytest.approx(expected, rel=1e-12)
    fitted = surrogate_episodes(scenario(), [0, 1])
    mean = (expected + fitted_exponent(instance(1))) / 2
    named = surrogate_episodes(scenario(), [0, 1], exponent=mean)
    assert torch.equal(fitted.broadcast, named.broadcast)


def test_best_sender_and_audience_by_definition() -> None:
    """The level of least time, and users divided by amplitude: rows sum to expected users."""
    draws = episodes()
    slot = draws.slot(0)
    e, g, x = 0, 0, 0b001
    levels = slot.chain_time[e, x] + slot.broadcast[e, g, slot.chain_sender[e, x]]
    assert int(slot.best_sender[e, g, x]) == int(slot.chain_sender[e, x, levels.argmin()])
    problem = instance()
    contains = kinds(problem.library.model_blocks)[1]
    wanted = forecast(problem.demand, problem.requests[:1])[0] @ contains
    np.testing.assert_allclose(
        slot.audience[0, 0].sum(dim=-1)[: wanted.shape[1]], wanted.sum(axis=0), rtol=1e-12
    )


def test_several_processes_make_the_same() -> None:
    """Two processes, two draws of one slot."""
    small = scenario(slots=1, nodes={"count": 2}, users={"count": 2})
    draws = [small.generate(seed) for seed in range(2)]
    told: list[int] = []
    shared = episodes_of(
        draws, workers=Workers(2), callback=lambda progress: told.append(progress.done)
    )
    assert told == [2]
    alone = episodes_of(draws)
    assert shared.beliefs is None
    for name in EPISODE_TENSORS:
        assert torch.equal(getattr(shared, name), getattr(alone, name)), name


def test_a_rate_cache_is_used(tmp_path: object) -> None:
    """The same episodes from the folder as without it; one file per slot."""
    one = episodes_of([instance()], bound=False, rate_cache=str(tmp_path))
    again = episodes_of([instance()], bound=False, rate_cache=str(tmp_path))
    assert torch.equal(one.broadcast, again.broadcast)
    assert torch.isnan(one.bound).all()
    achieved = prepared().achieved
    assert achieved is not None
    assert one.broadcast.shape[2] == max(len(table) for table in achieved.broadcast)


def test_what_has_no_episodes_is_refused_in_one_line() -> None:
    """Schedules whose delay is no sum over blocks, too many nodes, nothing to draw."""
    piped = replace(instance(), schedule="pipelined")
    with pytest.raises(ValueError, match=r"^instances\[0\]: schedule 'pipelined' is not allowed"):
        episodes_of([piped])
    with pytest.raises(ValueError, match="delivery 'spatial' is not allowed"):
        episodes_of([replace(instance(), delivery="spatial")])
    with pytest.raises(ValueError, match="9 nodes are not allowed"):
        surrogate_episodes(scenario(nodes={"count": 9}), [0])
    with pytest.raises(ValueError, match="horizon: 0 is not allowed"):
        episodes_of([instance()], horizon=0)
    with pytest.raises(ValueError, match="seeds: is empty"):
        surrogate_episodes(scenario(), [])
    with pytest.raises(ValueError, match="parts: is empty"):
        joined_episodes([])
    other = surrogate_episodes(scenario(users={"count": 5}), [0], exponent=0.5)
    with pytest.raises(ValueError, match=r"episodes: users are \[4, 5\], must be equal"):
        joined_episodes([episodes().select([0]), other])
