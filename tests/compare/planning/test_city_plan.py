"""The plan of a city: caches area by area, messages wide or local, and what there is time for."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import time

import numpy as np
import pytest
from chromium import Chromium
from click.testing import CliRunner

from finecast.cli.main import cli
from finecast.compare.planning.city import ALONE
from finecast.compare.planning.document import plan_document
from finecast.compare.planning.map import outline_of
from finecast.compare.planning.page import plan_page
from finecast.compare.planning.placing import weighted_total
from finecast.compare.planning.plan import plan
from finecast.compare.planning.words import gb
from finecast.problem.scenario import read_scenario
from finecast.solvers.areas.rates import prepare_areas
from finecast.solvers.placement.greedy import static_placement
from finecast.solvers.placement.problem import placement_delay
from finecast.solvers.signals import SearchInterrupt

WAYS = ["whole-models-planned", "half-storage", "no-migration", "no-comp", "whole-models"]


def two_areas():
    """Return a town of four sites in two areas: seconds for a whole plan."""
    changes = {"nodes.count": 4, "nodes.areas": 2, "users.count": 8, "name": "town"}
    return read_scenario("tiny").with_(changes)


@pytest.fixture(scope="module")
def town():
    """Return its plan on two draws."""
    return plan(two_areas(), draws=2, time_limit=None)


def test_a_city_plan_holds_together(town):
    """Areas part the sites, nothing is overfull, and no bound is above a delay.

    Every way is judged on the same draws. All that is sent goes within an area or to several.
    """
    assert [area.name for area in town.areas] == ["area 0", "area 1"]
    assert sorted(n for area in town.areas for n in area.sites) == [0, 1, 2, 3]
    assert sum(area.asking for area in town.areas) == 8
    for n, site in enumerate(town.sites):
        assert np.flatnonzero(town.cache[n]).tolist() == list(site.blocks)
        assert 0 < site.stored_bytes <= site.storage_bytes
        assert min(site.saved_by_extra.values) >= 0
    assert len(town.slot_delay.values) == len(town.lower_bound.values) == town.draws == 2
    for delay, bound in zip(town.slot_delay.values, town.lower_bound.values, strict=True):
        assert 0 < bound <= delay * (1 + 1e-9)
    assert [option.key for option in town.options] == WAYS
    assert all(np.isfinite(o.slot_delay.values).all() for o in town.options)
    assert town.slowest_area.mean >= town.slot_delay.mean  # of a mean over areas, by users
    total = sum(move.bytes_per_slot for move in town.moves)
    assert total == pytest.approx(town.moved_per_slot + town.from_cloud_per_slot)
    assert town.wide_bytes + sum(area.sent_bytes for area in town.areas) > 0
    assert town.notes == ()


def test_the_judge_says_what_areas_wait(town):
    """The delay of a round is the mean over users of what their area waits for, draw by draw.

    With one slot, and everybody asking, weights are shares of the users.
    """
    instances = [two_areas().generate(0), two_areas().generate(0, path=1, places=1)]
    for d, instance in enumerate(instances):
        users = np.array([(instance.user_area == a).sum() for a in range(2)])
        waits = [area.wait.values[d] for area in town.areas]
        assert users @ waits / users.sum() == pytest.approx(town.slot_delay.values[d], rel=1e-9)


def test_the_page_says_areas(town):
    """Page and sentences name the areas, in plain words before the appendix."""
    said = " ".join(town.sentences)
    assert "The 2 areas send at the same time" in said
    assert re.search(r"Of what is sent, \d+ % goes to several areas at once", said)
    page = plan_page(town)
    before, _, after = page.partition("<h2>Appendix</h2>")
    assert "What goes within an area, and what to the city" in before
    assert before.count("<title>area ") == 2  # shades of the map
    assert ALONE in before
    assert "area by area" in after
    assert len(plan_document(town)) > 1000
    assert plan_document(town) == plan_document(town)
    assert len(json.loads(json.dumps(town.as_dict()))["areas"]) == 2


def test_many_sites_are_not_named_on_the_map(town):
    """With more sites than names have room for, areas are named at their middle."""
    sites = tuple(
        dataclasses.replace(town.sites[0], name=f"site {n}", position=(100.0 * (n % 8), 100.0 * n))
        for n in range(40)
    )
    areas = tuple(
        dataclasses.replace(town.areas[0], name=f"area {a}", sites=tuple(range(4 * a, 4 * a + 4)))
        for a in range(10)
    )
    many = dataclasses.replace(town, sites=sites, areas=areas, links=())
    drawn = plan_page(many).partition("<svg")[2].partition("</svg>")[0]
    assert ">area 9</text>" in drawn
    assert ">site 9</text>" not in drawn
    assert plan_document(many).startswith(b"%PDF-")


def test_a_line_around_an_area(town):
    """It meets the corners of the hull alone, and both ends of sites on one line."""
    x, y = np.array([0.0, 4, 4, 0, 2, 2]), np.array([0.0, 0, 4, 4, 2, 0])
    area = dataclasses.replace(town.areas[0], sites=tuple(range(6)))
    assert sorted(outline_of(area, x, y)) == [0, 1, 2, 3]
    assert set(outline_of(dataclasses.replace(area, sites=(0, 4, 2)), x, y)) == {0, 2}
    assert outline_of(dataclasses.replace(area, sites=(3,)), x, y) == [3]


@pytest.mark.parametrize("width", [1400, 390])
def test_a_city_page_does_not_scroll_sideways(town, tmp_path, width):
    """The page of areas fits a screen and a telephone, fetches nothing and logs nothing."""
    (tmp_path / "plan.html").write_text(plan_page(town))
    with Chromium() as page:
        page.resize(width, 900, mobile=width < 500)
        page.send("Page.navigate", url=(tmp_path / "plan.html").as_uri())
        while not page.run("document.readyState === 'complete' && document.title != ''"):
            time.sleep(0.05)
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.messages == []


def test_no_time_is_a_plan_of_one_draw():
    """With a limit of 0 s there is a plan, judged on one draw, and notes on what is missing."""
    p = plan(two_areas(), draws=3, time_limit=0.0)
    assert p.draws == 1
    assert p.options == ()
    assert p.lower_bound is not None
    assert p.lower_bound.mean <= p.slot_delay.mean * (1 + 1e-9)
    assert any("1 of 3 draws" in note for note in p.notes)
    assert any("no time to compare" in note for note in p.notes)
    assert "Other ways were not computed" in plan_page(p)


def test_ctrl_c_keeps_the_plan_of_a_city():
    """Ctrl-C after the first draw gives the plan without other ways; before, it ends it all."""

    def stop_at(note):
        def stop(progress):
            if progress.note.startswith(note):
                raise SearchInterrupt

        return stop

    p = plan(two_areas(), draws=2, time_limit=None, callback=stop_at("other ways"))
    assert p.interrupted
    assert p.options == ()
    assert p.draws == 2
    with pytest.raises(KeyboardInterrupt):
        plan(two_areas(), draws=1, callback=stop_at("draws to choose"))


def test_weighted_draws_add_up():
    """Caches over draws cost the sum of every slot's delay by the judge of placements, weighted."""
    ready = prepare_areas(two_areas().with_(slots=2).generate(0))
    problem = ready.prepared[0].achieved
    roomy = dataclasses.replace(problem, storage=np.full(problem.nodes, problem.block_size.sum()))
    slots = [
        dataclasses.replace(roomy, group=roomy.group[t : t + 1], broadcast=(roomy.broadcast[t],))
        for t in range(2)
    ]
    total = weighted_total([(problem, np.array([0.25, 0.5])), (problem, np.array([0.0, 1.0]))])
    rng = np.random.default_rng(0)
    for _ in range(10):
        cached = rng.integers(0, 4, problem.blocks)
        first, second = (placement_delay(s, static_placement(s, cached)) for s in slots)
        summed = problem.block_size @ total[np.arange(problem.blocks), cached]
        assert summed == pytest.approx(0.25 * first + 1.5 * second, rel=1e-9)


def test_half_of_the_storage_stores_less():
    """What is stored with half of the room is no more than that, at every site."""
    from finecast.compare.planning.city import CityWork

    work = CityWork(two_areas(), 1, 0, None, None)
    size, room = work.library.block_size, work.network.storage
    for share, key in itertools.product((1.0, 0.5), ("", "no-comp")):
        assert (work.choose(key, share) @ size <= share * room).all()


def test_the_command_plans_a_city(tmp_path):
    """The command writes the page of a city and says its areas."""
    (tmp_path / "town.toml").write_text(
        'nodes = { count = 4, areas = 2, antennas = 2, storage_share = 0.4 }\nname = "town"\n'
        "library.synthetic = { models = 4, blocks = 8, families = 2 }\nusers.count = 6\n"
    )
    target = tmp_path / "plan.html"
    done = CliRunner().invoke(
        cli, ["plan", str(tmp_path / "town.toml"), "--draws", "1", "-o", str(target)]
    )
    assert done.exit_code == 0, done.output
    assert "areas send at the same time" in done.output
    assert "area 1" in target.read_text()


def test_bytes_in_words():
    """No exponents where a GB is nearly full."""
    assert [gb(v) for v in (0, 2e6, 999.4e6, 999.9e6, 1e9)] == [
        "0 GB", "2 MB", "999 MB", "1.00 GB", "1.00 GB",
    ]  # fmt: skip
