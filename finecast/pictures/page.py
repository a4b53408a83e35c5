"""One page with everything there is to see: the network, the caches, and a slot."""

from __future__ import annotations

from matplotlib.figure import Figure

from finecast.pictures.caches import draw_caches
from finecast.pictures.city import city_picture
from finecast.pictures.gantt import draw_gantt, gantt_height_in
from finecast.pictures.network import draw_network, network_picture
from finecast.pictures.style import new_figure
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution

WIDTH_IN = 16.0
"""Of the page, inches."""
DPI = 100
"""Of the page as pixels."""


def overview(instance: Instance, solution: Solution | None = None, slot: int = 0) -> Figure:
    """Draw the network and, with a solution, caches and Gantt chart of a slot, on one page.

    With several areas it is `finecast.pictures.city.city_picture`.

    Parameters
    ----------
    instance
        The problem.
    solution
        Decisions of the same shape; without them there is only the network to see.
    slot
        Which slot.

    Raises
    ------
    ValueError
        There is no such slot, or the shapes differ.
    """
    if instance.area_count > 1:
        return city_picture(instance, solution, slot)
    if solution is None:
        return network_picture(instance, slot)
    upper = max(5.6, 1.9 + 0.3 * instance.nodes)
    lower = gantt_height_in(instance, solution, slot) + 0.3
    figure = new_figure(upper + lower, WIDTH_IN, DPI)
    grid = figure.add_gridspec(
        2,
        2,
        height_ratios=[upper, lower],
        width_ratios=[8.4, 7.6],
        hspace=0,
        wspace=0,
        left=0,
        right=1,
        bottom=0,
        top=1,
    )
    draw_network(figure.add_subfigure(grid[0, 0]), instance, slot)
    draw_caches(figure.add_subfigure(grid[0, 1]), instance, solution, slot)
    draw_gantt(figure.add_subfigure(grid[1, :]), instance, solution, slot)
    return figure
