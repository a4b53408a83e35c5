"""The network planner's plan: what it stores, what it says, and the page."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time

import numpy as np
import pytest
from chromium import Chromium
from click.testing import CliRunner

import finecast
from finecast.cli.main import cli
from finecast.cli.plan import command
from finecast.compare.planning.document import plan_document
from finecast.compare.planning.figures import spread
from finecast.compare.planning.page import plan_page
from finecast.compare.planning.placing import further_copies, pooled, saved_seconds
from finecast.compare.planning.plan import plan
from finecast.compare.planning.solution_words import solution_sentences, stored_rows
from finecast.problem.scenario import read_scenario
from finecast.solvers.placement.greedy import greedy_sets, static_placement, total_cost
from finecast.solvers.placement.problem import placement_delay
from finecast.solvers.prepared import prepare
from finecast.solvers.signals import SearchInterrupt


@pytest.fixture(scope="module")
def tiny_plan():
    """Return the plan of the scenario tiny on three draws."""
    return plan("tiny", draws=3, time_limit=None)


def test_a_plan_holds_together(tiny_plan):
    """Nothing stores more than it has, bounds are below delays, and half the storage is no better.

    The figures of the plan are those of its draws: the plan is the same caches in all of them.
    """
    p = tiny_plan
    library = read_scenario("tiny").generate(0).library
    for n, site in enumerate(p.sites):
        assert site.stored_bytes == library.block_size[p.cache[n]].sum() <= site.storage_bytes
        assert np.flatnonzero(p.cache[n]).tolist() == list(site.blocks)
        assert site.saved_by_extra.low <= site.saved_by_extra.mean
        assert min(site.saved_by_extra.values) >= 0
    assert len(p.slot_delay.values) == len(p.lower_bound.values) == p.draws == 3
    for delay, bound in zip(p.slot_delay.values, p.lower_bound.values, strict=True):
        assert bound <= delay * (1 + 1e-9)
    assert p.above_bound == pytest.approx(p.slot_delay.mean / p.lower_bound.mean - 1)
    assert [option.key for option in p.options] == [
        "whole-models", "whole-models-planned", "half-storage", "no-migration", "no-comp",
    ]  # fmt: skip
    longer = {option.key: option.longer.mean for option in p.options}
    assert longer["half-storage"] > 0
    assert longer["no-comp"] > 0
    total = sum(move.bytes_per_slot for move in p.moves)
    assert total == pytest.approx(p.moved_per_slot + p.from_cloud_per_slot)
    assert not p.interrupted


def test_the_same_plan_again(tiny_plan):
    """Without a time limit a plan depends on the scenario and the seed alone."""
    again = plan(read_scenario("tiny"), draws=3, time_limit=None)
    assert np.array_equal(again.cache, tiny_plan.cache)
    assert again.slot_delay == tiny_plan.slot_delay
    assert again.sentences == tiny_plan.sentences


def test_room_for_all():
    """With room for everything all is stored, nothing moves, and more room is worth nothing."""
    all_of_it = read_scenario("tiny").with_({"nodes.storage_share": 1.0})
    p = plan(all_of_it, draws=2, time_limit=None)
    assert p.moves == ()
    assert p.moved_per_slot == p.from_cloud_per_slot == 0
    assert all(site.saved_by_extra.mean == 0 for site in p.sites)
    assert any("Nothing has to move" in sentence for sentence in p.sentences)
    # All nodes hold every needed part, which is what the bound supposes: only beams are left.
    assert p.above_bound < 0.02


def test_the_answer_is_the_first_sentence(tiny_plan):
    """The first sentence says what to store and what users wait; no method is named before the end.

    Nor does a word of the trade stand before the appendix.
    """
    first = tiny_plan.sentences[0]
    assert first.startswith("Store ")
    assert "a user then waits" in first
    assert str(tiny_plan) == "\n".join(tiny_plan.sentences)
    page = plan_page(tiny_plan)
    before, _, after = page.partition("<h2>Appendix</h2>")
    assert first in before.replace("&#x27;", "'")
    for word in ("LRU", "greedy", "Lagrang", "CoMP", "SAA", "dual", "stochastic"):
        assert word.lower() not in before.lower().partition("</style>")[2]
    assert "LRU" in after


def test_spread_is_that_of_student():
    """Mean and interval of 1, 2, 3: 2 and 2 -+ 4.3027 / sqrt(3); one draw has no interval."""
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.high) == (2.0, pytest.approx(2 + 4.302653 / math.sqrt(3)))
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3))
    assert math.isnan(spread([5.0]).low)


@pytest.fixture(scope="module")
def draws():
    """Return the placement problems of two draws of the scenario tiny."""
    tiny = read_scenario("tiny")
    return [prepare(tiny.generate(0, path=d, places=d)).achieved for d in (0, 1)]


def test_pooled_draws_add_up(draws):
    """The delay of caches over pooled draws is the sum over the draws, for every cached set."""
    rng = np.random.default_rng(0)
    both = pooled(draws)
    cost = total_cost(both)
    for _ in range(20):
        cached = rng.integers(0, 4, both.blocks)
        apart = sum(placement_delay_of(one, cached) for one in draws)
        summed = both.block_size @ cost[np.arange(both.blocks), cached]
        assert summed == pytest.approx(apart, rel=1e-9)


def placement_delay_of(problem, cached):
    """Return the delay by the judge of placements, with no limit on storage."""
    roomy = dataclasses.replace(problem, storage=np.full(problem.nodes, problem.block_size.sum()))
    return placement_delay(roomy, static_placement(roomy, cached))


def test_what_more_room_saves(draws):
    """Further copies fit, are the best first, and save what the judge of placements says."""
    both = pooled(draws)
    cost = total_cost(both)
    cached = greedy_sets(cost, both.block_size, both.storage)
    for node, room in itertools.product(range(2), (0, 600_000, 10_000_000)):
        more = further_copies(cost, both.block_size, cached, 2, node, room)
        assert both.block_size[more].sum() <= room
        assert not ((cached[more] >> node) & 1).any()
        larger = cached.copy()
        larger[more] |= 1 << node
        before, after = placement_delay_of(both, cached), placement_delay_of(both, larger)
        assert saved_seconds(both, cached, node, more) == pytest.approx(before - after, abs=1e-12)
    lacking = np.flatnonzero(((cached >> node) & 1) == 0)
    assert set(more) <= set(lacking.tolist())


@pytest.mark.parametrize(("after", "options"), [("bound", 0), ("today's practice", 0)])
def test_ctrl_c_keeps_what_there_is(after, options):
    """Ctrl-C once a draw is judged gives the plan without what was not reached, and says so."""

    def stop(progress):
        if progress.note.startswith(after):
            raise SearchInterrupt

    p = plan("tiny", draws=2, time_limit=None, callback=stop)
    assert p.interrupted
    assert p.draws == 2
    assert len(p.options) == options
    assert (p.lower_bound is None) == (after == "bound")
    assert "ended early" in p.sentences[-1]
    assert "ended early" in plan_page(p)
    assert "not computed" in plan_page(p)
    assert json.dumps(p.as_dict(), allow_nan=True)


def test_ctrl_c_before_a_plan():
    """Before there is a plan Ctrl-C ends the computation as usual."""

    def stop(progress):
        raise SearchInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan("tiny", draws=1, callback=stop)


def test_without_names_families_or_positions(tmp_path):
    """A library without families or names, channels from a file: sites are numbered."""
    rng = np.random.default_rng(1)
    channel = 1e-5 * (rng.normal(size=(1, 2, 2, 2)) + 1j * rng.normal(size=(1, 2, 2, 2)))
    np.savez(tmp_path / "h.npz", channel=channel)
    (tmp_path / "plain.json").write_text(
        json.dumps(
            {
                "format": "finecast-library",
                "version": 1,
                "blocks": [{"name": f"b{j}", "size_bytes": 1000 + j} for j in range(3)],
                "models": [
                    {"name": "<b>one</b>", "blocks": ["b0", "b1"]},
                    {"name": "two", "blocks": ["b0", "b2"]},
                ],
            }
        )
    )
    (tmp_path / "plain.toml").write_text(
        'library.file = "plain.json"\nnodes = { count = 2, antennas = 2, storage_share = 0.5 }\n'
        'users.count = 2\nchannel.file = "h.npz"\nname = "<script>alert(1)</script>"\n'
    )
    p = finecast.plan(tmp_path / "plain.toml", draws=1, time_limit=None)
    assert [site.name for site in p.sites] == ["site 0", "site 1"]
    assert p.in_time is None
    page = plan_page(p)
    assert "<script" not in page
    assert "<b>one" not in page
    finecast.write_plan(p, tmp_path / "plan.html")
    assert (tmp_path / "plan.html").read_text() == page


def test_document(tiny_plan):
    """The document is a PDF that depends on the plan alone."""
    content = plan_document(tiny_plan)
    assert content.startswith(b"%PDF-")
    assert content == plan_document(tiny_plan)


@pytest.mark.parametrize("width", [1400, 390])
def test_no_sideways_scrolling(tiny_plan, tmp_path, width):
    """The page fits a screen and a telephone, fetches nothing and logs nothing."""
    long = [dataclasses.replace(site, name="Site" * 30) for site in tiny_plan.sites]
    odd = dataclasses.replace(tiny_plan, sites=tuple(long))
    (tmp_path / "plan.html").write_text(plan_page(odd))
    with Chromium() as page:
        page.resize(width, 900, mobile=width < 500)
        page.send("Page.navigate", url=(tmp_path / "plan.html").as_uri())
        while not page.run("document.readyState === 'complete' && document.title != ''"):
            time.sleep(0.05)
        assert page.run("document.title").startswith("Plan for")
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.messages == []


def test_command(tmp_path):
    """The command writes the page, prints the sentences or JSON, and refuses bad input."""
    target = tmp_path / "plan.html"
    done = CliRunner().invoke(cli, ["plan", "tiny", "--draws", "1", "-o", str(target), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["draws"] == 1
    assert said["file"] == str(target)
    assert said["answer"][0] in target.read_text().replace("&#x27;", "'")
    with pytest.raises(ValueError, match="has the ending"):
        command.main(["tiny", "-o", str(tmp_path / "plan.doc")], standalone_mode=False)
    with pytest.raises(ValueError, match="did you mean 'users'"):
        command.main(["tiny", "--set", "userz.count=1"], standalone_mode=False)
    with pytest.raises(ValueError, match="draws: 0 is not allowed"):
        finecast.plan("tiny", draws=0)


def test_solution_in_words():
    """The waits and bytes of the sentences are those of the judge; names stand in the rows."""
    instance = read_scenario("vision-horizon").with_({"slots": 2, "users.count": 4}).generate(0)
    result = finecast.solve(instance, "greedy")
    said = " ".join(solution_sentences(instance, result.solution))
    found = result.evaluation
    assert f"waits {found.mean_completion:.3g} s in the mean" in said
    assert f"{found.migrated_bytes / 2 / 1e9:.2f} GB move between sites" in said
    assert "stays the same in all slots" in said
    rows = dict(stored_rows(instance, result.solution))
    assert list(rows) == ["site 0", "site 1", "site 2", "site 3"]
    assert " of 2.00 GB" in rows["site 0"]


def test_city_center_is_planned(tmp_path):
    """The shipped city: 12 named sites, a plan that beats whole models, in well under two minutes.

    One draw and little time: this is about the shape, `docs/planning.md` has the figures.
    """
    p = plan("city-center", draws=1, time_limit=5.0)
    assert len(p.sites) == 12
    assert p.sites[0].name == "Central Station"
    assert p.deadline_s == 15.0
    assert p.in_time is not None
    longer = {option.key: option.longer.mean for option in p.options}
    assert min(longer.values()) > 0
    assert p.wall_s < 120
