"""Pictures of a city: what is drawn is what the judge says of its areas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from area_plans import cloud_plan
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from finecast.pictures import overview, save_picture, slot_gantt
from finecast.pictures.city import WAIT_COLOURS, borders, city_picture
from finecast.pictures.slot_view import slowest_area, view_of
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.problem.solution import Solution


@pytest.fixture(scope="module")
def city() -> tuple[Instance, Solution]:
    """Seven nodes in areas of at most two, and a plan with wide and local messages."""
    instance = Scenario.model_validate(
        {
            "name": "town",
            "slots": 2,
            "library": {"synthetic": {"models": 6, "blocks": 20, "families": 2}},
            "nodes": {"count": 7, "antennas": 2, "areas": 2},
            "users": {"count": 20},
            "channel": {"error": 0.05},
        }
    ).generate(0)
    return instance, cloud_plan(instance, wide_from=3)


def artist(figure: Figure, gid: str) -> list[object]:
    """Return everything that carries a name."""
    return figure.findobj(lambda a: a.get_gid() == gid)


def test_cells_have_the_colour_of_their_areas_wait(city: tuple[Instance, Solution]) -> None:
    """The slowest area is darkest, the fastest lightest, and the cells of an area are alike."""
    instance, solution = city
    wait = evaluate(instance, solution).area_delay[1]
    figure = city_picture(instance, solution, 1)
    colour = {}
    for n in range(instance.nodes):
        _, of_wait = artist(figure, f"cell {n}")  # the first map shows the load
        colour.setdefault(int(instance.areas[n]), set()).add(to_hex(of_wait.get_facecolor()))
    assert all(len(found) == 1 for found in colour.values())
    assert colour[int(wait.argmax())] == {to_hex(WAIT_COLOURS(1.0))}
    assert colour[int(wait.argmin())] == {to_hex(WAIT_COLOURS(0.0))}


def test_bars_are_the_delay_of_each_area(city: tuple[Instance, Solution]) -> None:
    """Widths are the weights of the areas, heights add up to what they wait."""
    instance, solution = city
    result = evaluate(instance, solution)
    figure = city_picture(instance, solution, 0)
    mean = 0.0
    for a in np.flatnonzero(instance.area_weight[0] > 0):
        bars = [artist(figure, f"{name} {a}")[0] for name in ("wide", "moves", "sends")]
        height = sum(bar.get_height() for bar in bars)
        assert height == pytest.approx(result.area_delay[0, a])
        assert bars[0].get_width() == pytest.approx(instance.area_weight[0, a])
        mean += bars[0].get_width() * height
    assert mean == pytest.approx(result.slot_delay[0])


@pytest.mark.parametrize("area", [0, 1, 2, 3])
def test_the_chart_of_an_area_ends_when_the_judge_says(
    city: tuple[Instance, Solution], area: int
) -> None:
    """Wide modes first, then those of the area; only its nodes have rows."""
    instance, solution = city
    result = evaluate(instance, solution)
    view = view_of(instance, solution, 0, area)
    assert view.times.end == pytest.approx(result.area_delay[0, area])
    assert view.nodes.tolist() == np.flatnonzero(instance.areas == area).tolist()
    figure = slot_gantt(instance, solution, 0, area)
    assert len(artist(figure, "end of wide phase")) == 3  # a line in each of the three parts
    axes: Axes = figure.axes[0]
    assert axes.get_xlim()[1] == pytest.approx(1.005 * view.times.end)


def test_the_slowest_area_is_drawn(city: tuple[Instance, Solution]) -> None:
    """It is named in the heading."""
    instance, solution = city
    slowest = slowest_area(instance, evaluate(instance, solution), 0)
    texts = [text.get_text() for text in overview(instance, solution, 0).findobj(Text)]
    assert any(text.startswith(f"Area {slowest} in slot 0") for text in texts)


def test_borders_are_sides_of_one_area() -> None:
    """Two squares side by side: the side between them counts only between two areas, for each."""
    left = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    cells = (left, left + np.array([1.0, 0.0]))
    assert len(borders(cells, np.array([0, 0]))) == 6
    assert len(borders(cells, np.array([0, 1]))) == 8  # the common side once for each


def test_an_area_that_is_none_is_refused(city: tuple[Instance, Solution]) -> None:
    """One line with what is allowed."""
    instance, solution = city
    with pytest.raises(ValueError, match=r"^area: 4 is not allowed, must be 0 to 3$"):
        slot_gantt(instance, solution, 0, 4)


def test_without_a_solution_the_load_is_drawn(
    city: tuple[Instance, Solution], tmp_path: Path
) -> None:
    """A map alone, which can be written."""
    figure = overview(city[0], None, 0)
    save_picture(figure, tmp_path / "map.png")
    assert "requesting users per node" in [text.get_text() for text in figure.findobj(Text)]
