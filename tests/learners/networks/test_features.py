"""Features: their meaning by hand, and that blocks and nodes have no names."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from learner_scenarios import Dice, at_start, episodes, instance, renumbered, scenario

from finecast.learners.networks.feature_basis import basis_of
from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, STATE, Features, features
from finecast.learners.world.draws import surrogate_episodes, surrogate_of
from finecast.learners.world.environment import View, allowed_sources, roll
from finecast.learners.world.episodes import Episodes, joined_episodes
from finecast.learners.world.lookahead import lookahead_of


def views(draws: Episodes, **options: Any) -> list[tuple[View, int | None]]:
    """Return all views of a rollout with random decisions."""
    dice = Dice(2)
    roll(draws, dice, **options)
    return dice.views


def unit_of(view: View, e: int) -> float:
    """Return the unit of time of a draw, from its definition, s/byte."""
    slot = view.slot
    spent = total = 0.0
    for j in range(slot.blocks):
        if slot.group[e, j] >= 0:
            total += float(slot.size[e, j])
            spent += float(slot.size[e, j] * slot.broadcast[e, slot.group[e, j], -1])
    return float(slot.link[e, -1].mean()) + spent / total


def column(names: tuple[str, ...], name: str) -> int:
    """Return the index of the only name that begins so."""
    found = [i for i, known in enumerate(names) if known.startswith(name)]
    assert len(found) == 1, found
    return found[0]


def test_every_name_has_a_feature_and_all_are_finite() -> None:
    """Also in the last slot, with nothing to come, and with empty caches."""
    look, _ = lookahead_of(episodes(), steps=5)
    seen = views(episodes())
    for view, n in seen:
        found = features(view, n, look.slot(view.slot.t))
        for part, names in (
            (found.own, OWN),
            (found.neighbour, NEIGHBOUR),
            (found.cloud, CLOUD),
            (found.state, STATE),
        ):
            assert part.shape[-1] == len(names)
            assert part.dtype == torch.float32
            assert bool(part.isfinite().all())
            assert float(part.abs().max()) < 10
    assert len(set(OWN)) == len(OWN)


@pytest.mark.parametrize("in_turn", [True, False])
def test_one_node_is_a_row_of_all_nodes(in_turn: bool) -> None:
    """And the basis of a slot can be computed at its beginning."""
    look, _ = lookahead_of(episodes(), steps=5)
    for view, _ in views(episodes(), in_turn=in_turn)[:6]:
        values = look.slot(view.slot.t)
        start = View(view.slot, view.cached, view.cached, view.cached * 0, in_turn=in_turn)
        every = features(view, None, values)
        for n in range(3):
            one = features(view, n, values, basis_of(start, values))
            for name in ("own", "neighbour", "cloud", "may_pull", "may_keep"):
                assert torch.equal(getattr(one, name), getattr(every, name)[:, n]), name
            assert torch.equal(one.state, every.state)


def test_masks_are_what_the_environment_allows() -> None:
    """A source may be named if and only if it is not projected away."""
    view, _ = views(episodes())[6]
    found = features(view, None)
    for source in range(4):
        named = torch.full((2, 3, view.slot.blocks), source)
        allowed = allowed_sources(view.slot, view.cached, named) >= 0
        assert torch.equal(found.may_pull[..., source], allowed)
    keeping = next(view for view, _ in views(episodes()) if view.keeping)
    bit = (1 << torch.arange(3))[:, None]
    assert torch.equal(features(keeping, None).may_keep, (keeping.held[:, None] & bit) != 0)


def test_what_a_copy_saves_by_hand() -> None:
    """Differences of the expected tables at the sets of the view, in units."""
    view, n = next((view, n) for view, n in views(episodes()) if view.keeping and n == 2)
    slot = view.slot
    found = features(view, n).own
    e, j = 1, int(slot.needed[1].nonzero()[0])
    c, others = int(slot.kind[e, j]), int(view.kept[e, j]) & 0b011
    unit = unit_of(view, e)
    for h in range(3):
        saved = (slot.worth[e, h, c, others] - slot.worth[e, h, c, others | 0b100]) / unit
        index = column(OWN, f"saved by a copy here, coming slot {h + 1}")
        assert float(found[e, j, index]) == pytest.approx(float(saved), rel=1e-5, abs=1e-6)
    table, group = slot.broadcast[e], int(slot.group[e, j])
    without, joined = (
        min(5.0, float(table[group, sets]) / unit) for sets in (others, others | 0b100)
    )
    index = column(OWN, "time on the air that joining saves now")
    assert float(found[e, j, index]) == pytest.approx(without - joined, rel=1e-5, abs=1e-6)
    index = column(OWN, "size in storages")
    expected = float(slot.size[e, j] / slot.storage[e, 2])
    assert float(found[e, j, index]) == pytest.approx(expected, rel=1e-6)


def test_the_margin_of_the_storage_by_hand() -> None:
    """Bytes of what saves more come first; the first block that does not fit is the margin."""
    view, n = next((view, n) for view, n in views(episodes()) if view.keeping and n == 0)
    slot = view.slot
    found = features(view, n).own[0]
    saved = found[:, column(OWN, "saved by a copy here, coming slot 1")]
    held = (view.held[0] & 1) == 1
    filled, margin = 0.0, 0.0
    for j in torch.argsort(-saved, stable=True).tolist():
        index = column(OWN, "bytes of what saves more")
        assert float(found[j, index]) == pytest.approx(min(filled, 3.0), abs=1e-5)
        if held[j]:
            filled += float(slot.size[0, j] / slot.storage[0, 0])
            if filled > 1.0 + 1e-6:
                margin = max(margin, float(saved[j]))
    index = column(OWN, "saved in the next slot less")
    torch.testing.assert_close(found[:, index], saved - margin, atol=1e-5, rtol=0)


def test_lookahead_features_are_its_marginals() -> None:
    """0 without; with it, differences of its tables."""
    view, n = next((view, n) for view, n in views(episodes()) if view.keeping and n == 1)
    slot = view.slot
    look = lookahead_of(episodes(), steps=5)[0].slot(slot.t)
    columns = [i for i, name in enumerate(OWN) if name.startswith("lookahead")]
    assert len(columns) == 3
    assert bool((features(view, n).own[..., columns] == 0).all())
    found = features(view, n, look).own
    e, j = 0, 3
    c, others = int(slot.kind[e, j]), int(view.others(1)[e, j])
    unit = unit_of(view, e)
    kept = float(look.cost[e, c, others] - look.cost[e, c, others | 2]) / unit
    left = float(look.after[e, c, others] - look.after[e, c, others | 2]) / unit
    expected = [kept, left, kept - float(look.price[e, 0, 1]) / unit]
    np.testing.assert_allclose(found[e, j, columns], expected, rtol=1e-4, atol=1e-6)


def test_permuted_blocks_have_permuted_features() -> None:
    """A network over blocks cannot know their numbers; padding is 0 everywhere."""
    view, _ = views(episodes())[8]
    slot = view.slot
    turned = torch.randperm(slot.blocks, generator=torch.Generator().manual_seed(1))
    names = ("size", "kind", "sharing", "group", "recency", "frequency")
    other = replace(
        view,
        slot=replace(slot, **{name: getattr(slot, name)[:, turned] for name in names}),
        cached=view.cached[:, turned],
        held=view.held[:, turned],
        kept=view.kept[:, turned],
    )
    before, after = features(view, None), features(other, None)
    for name in ("own", "neighbour", "cloud", "may_pull", "may_keep"):
        # Of blocks that save the same, the first counts as first: leave that column out.
        mine, theirs = getattr(before, name)[:, :, turned], getattr(after, name)
        if name == "own":
            ranked = column(OWN, "bytes of what saves more")
            mine, theirs = mine.clone(), theirs.clone()
            mine[..., ranked] = theirs[..., ranked] = 0
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(before.state, after.state, rtol=1e-5, atol=1e-6)


def test_permuted_nodes_have_permuted_features() -> None:
    """Nor can it know the numbers of the nodes: those of a system renumbered are the same."""
    order = [2, 0, 1]
    one = surrogate_of(instance(), 0.5, dtype=torch.float64)
    other = surrogate_of(renumbered(instance(), order), 0.5, dtype=torch.float64)
    cache = one.start.clone()
    cache[0, 1] = cache[0, 1].roll(2)
    before = features(at_start(one, cache), None)
    after = features(at_start(other, cache[:, order]), None)
    same = [i for i, name in enumerate(OWN) if "what saves more" not in name]
    torch.testing.assert_close(
        before.own[:, order][..., same], after.own[..., same], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(before.cloud[:, order], after.cloud, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(before.state, after.state, rtol=1e-4, atol=1e-5)
    # Node 0 of the renumbered system is node 2, whose neighbours 0 and 1 are now 1 and 2.
    torch.testing.assert_close(before.neighbour[:, 2], after.neighbour[:, 0], rtol=1e-4, atol=1e-5)


def test_sizes_do_not_depend_on_blocks_or_nodes() -> None:
    """The same columns for 5 nodes and 20 blocks; one row per other node."""
    larger = scenario(
        nodes={"count": 5},
        library={"synthetic": {"models": 8, "blocks": 20, "families": 2, "total_gb": 1.0}},
    )
    draws = surrogate_episodes(larger, [0, 1], exponent=0.5)
    found = features(at_start(draws, draws.start), 3)
    assert found.own.shape == (2, 20, len(OWN))
    assert found.neighbour.shape == (2, 20, 4, len(NEIGHBOUR))
    assert found.cloud.shape == (2, 20, len(CLOUD))
    assert found.state.shape == (2, len(STATE))
    assert found.may_pull.shape == (2, 20, 6)


def test_padding_says_nothing() -> None:
    """Padded blocks have features 0 and masks False; real ones are as without padding."""
    draws = episodes()
    longer = surrogate_episodes(
        scenario(library={"synthetic": {"models": 9, "blocks": 15, "families": 3}}),
        [5],
        exponent=0.5,
        dtype=torch.float64,
    )
    batch = joined_episodes([draws, longer])
    found = features(at_start(batch, batch.start), 1)
    alone = features(at_start(draws, draws.start), 1)
    for field in fields(Features):
        whole, part = getattr(found, field.name), getattr(alone, field.name)
        if field.name == "state":
            torch.testing.assert_close(whole[:2], part, rtol=1e-5, atol=1e-5)
            continue
        torch.testing.assert_close(whole[:2, :12], part, rtol=1e-5, atol=1e-5)
        assert not bool(whole[:2, 12:].any()), field.name
