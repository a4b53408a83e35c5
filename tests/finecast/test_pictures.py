"""Pictures: what is drawn is what the instance and the judge say, and it can be read."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from repository import DATA, ROOT

from finecast.pictures import (
    cache_picture,
    network_picture,
    overview,
    save_picture,
    slot_gantt,
)
from finecast.pictures.layout import layout_of, voronoi_cells
from finecast.pictures.style import family_colours
from finecast.pictures.timeline import timeline
from finecast.problem.evaluation import evaluate
from finecast.problem.files import FormatError
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.problem.solution import Broadcast, Solution, silence
from finecast.solvers.solve import solve

LIBRARY = str(DATA / "libraries" / "tiny.json")


def instance_of(**changes: Any) -> Instance:
    """Two nodes, three users, six blocks of a few hundred kB; anything may be changed."""
    scenario: dict[str, Any] = {
        "name": "tiny",
        "library": {"file": LIBRARY},
        "nodes": {"count": 2, "antennas": 2, "storage_gb": 0.002},
        "users": {"count": 3},
    }
    return Scenario.model_validate({**scenario, **changes}).generate(0)


@pytest.fixture(scope="module", params=["sequential", "pipelined"])
def solved(request: pytest.FixtureRequest) -> tuple[Instance, Solution]:
    """Return an instance with slow links, and what the first solver makes of it."""
    links = {"backhaul_gbps": [0.2, 0.4], "cloud_gbps": [0.1, 0.2]}
    instance = instance_of(slots=2, schedule=request.param, links=links)
    solution = solve(instance).solution
    assert solution is not None
    return instance, solution


def random_solution(instance: Instance, seed: int, *, flow_shop: bool = False) -> Solution:
    """Return messages of random blocks in random modes; it breaks rules, the judge times it."""
    rng = np.random.default_rng(seed)
    K, N, J, A = instance.users, instance.nodes, instance.blocks, instance.antennas
    shape = (instance.slots, N, J)
    broadcasts = []
    for _ in range(instance.slots):
        if flow_shop:
            blocks = np.eye(J, dtype=bool)
            message, mode = rng.permutation(J), rng.permutation(J)
        else:
            blocks = rng.random((4, J)) < 0.5
            blocks[:, 0] = True
            # Every mode and message at least once, then any other pairs.
            message, mode = np.nonzero((rng.random((4, 3)) < 0.4) | np.eye(4, 3, dtype=bool))
        messages = len(blocks)
        broadcasts.append(
            Broadcast(
                users=(rng.random((messages, K)) < 0.7)
                | np.eye(messages, K, dtype=bool)
                | (np.arange(messages) >= K)[:, None],
                nodes=np.ones((messages, N), dtype=bool),
                blocks=blocks,
                duration=rng.uniform(0.001, 0.05, J if flow_shop else 3),
                mode=mode,
                message=message,
                beam=np.ones((len(mode), N, A), dtype=np.complex128),
                rate=rng.uniform(1e8, 7e8, len(mode)),
            )
        )
    # From the next node or, half the time, from the cloud: never from the node itself.
    receiver = np.arange(N)[:, None]
    source = np.where(rng.random(shape) < 0.5, (receiver + 1) % N, N)
    return Solution(
        cache=rng.random(shape) < 0.5,
        source=np.where(rng.random(shape) < 0.5, source, -1),
        broadcasts=tuple(broadcasts),
    )


def artists(figure: Figure, gid: str, kind: type = object) -> list[Any]:
    """Return what is drawn under ids that start with `gid`."""
    return [
        artist
        for artist in figure.findobj(lambda a: (a.get_gid() or "").startswith(gid))
        if isinstance(artist, kind)
    ]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]


def drawn(figure: Figure) -> Figure:
    """Render, with every warning an error."""
    FigureCanvasAgg(figure).draw()
    return figure


# --- the timeline ---------------------------------------------------------------------------


def two_jobs() -> tuple[Broadcast, np.ndarray[Any, Any]]:
    """Message 0 (block 0) migrates 2 s and lasts 1 s, message 1 (block 1) 1 s and 3 s."""
    broadcast = Broadcast(
        users=np.ones((2, 1), dtype=bool),
        nodes=np.ones((2, 1), dtype=bool),
        blocks=np.eye(2, dtype=bool),
        duration=np.array([1.0, 3.0]),
        mode=np.array([0, 1]),
        message=np.array([0, 1]),
        beam=np.ones((2, 1, 1), dtype=np.complex128),
        rate=np.ones(2),
    )
    return broadcast, np.array([2.0, 1.0])


def test_sequential_timeline_by_hand() -> None:
    """Nothing overlaps: 2 s migration, 1 s on the air, 1 s migration, 3 s on the air."""
    times = timeline(*two_jobs(), "sequential")
    assert times.migration_start.tolist() == [0.0, 3.0]
    assert times.mode_start.tolist() == [2.0, 4.0]
    assert times.mode_end.tolist() == [3.0, 7.0]
    assert times.end == 7.0


def test_pipelined_timeline_by_hand() -> None:
    """Johnson sends message 1 first, as it migrates faster than it lasts: 1 to 4 s, then 4 to 5."""
    times = timeline(*two_jobs(), "pipelined")
    assert times.migration_start.tolist() == [1.0, 0.0]
    assert times.mode_start.tolist() == [4.0, 1.0]
    assert times.mode_end.tolist() == [5.0, 4.0]


@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
@pytest.mark.parametrize("flow_shop", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_timeline_agrees_with_the_judge(schedule: Any, flow_shop: bool, seed: int) -> None:
    """The last mode of every user, and the end of the slot, are the judge's, for any messages."""
    instance = instance_of(slots=2, schedule=schedule)
    solution = random_solution(instance, seed, flow_shop=flow_shop)
    judged = evaluate(instance, solution)
    for t, broadcast in enumerate(solution.broadcasts):
        migration = judged.block_migration[t]
        times = timeline(broadcast, migration, schedule)
        assert times.end == pytest.approx(judged.slot_delay[t], rel=1e-12)
        for k in np.flatnonzero(np.isfinite(judged.user_completion[t])):
            mine = broadcast.mode[broadcast.users[broadcast.message, k]]
            assert times.mode_end[mine].max() == pytest.approx(judged.user_completion[t, k])
        assert times.mode_end - times.mode_start == pytest.approx(broadcast.duration)
        begin = np.sort(times.migration_start[migration > 0])
        order = np.argsort(times.migration_start[migration > 0])
        finish = begin + migration[migration > 0][order]
        assert (begin[1:] >= finish[:-1] - 1e-12).all()  # one after another
        for x, i in enumerate(broadcast.message):
            held = np.flatnonzero(broadcast.blocks[i])
            arrived = (times.migration_start + migration)[held].max()
            assert arrived <= times.mode_start[broadcast.mode[x]] + 1e-12


# --- the Gantt chart ------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [0, 1])
def test_gantt_bars_last_as_long_as_the_judge_says(
    solved: tuple[Instance, Solution], slot: int
) -> None:
    """One bar per message in a mode, in place, as high as its rate; migrations as the judge's."""
    instance, solution = solved
    broadcast = solution.broadcasts[slot]
    judged = evaluate(instance, solution)
    times = timeline(broadcast, judged.block_migration[slot], instance.schedule)
    figure = drawn(slot_gantt(instance, solution, slot))
    bars = artists(figure, "message", Rectangle)
    assert len(bars) == len(broadcast.mode) > 0
    for x, bar in enumerate(bars):
        m = broadcast.mode[x]
        assert bar.get_gid() == f"message {broadcast.message[x]} in mode {m}"
        assert bar.get_width() == pytest.approx(broadcast.duration[m])
        assert bar.get_x() == pytest.approx(times.mode_start[m])
        assert bar.get_height() == pytest.approx(broadcast.rate[x] / instance.network.bandwidth)
    longest = np.zeros(instance.blocks)
    migrations = artists(figure, "migration", Rectangle)
    for bar in migrations:
        j = int(bar.get_gid().split()[1])
        assert bar.get_x() == pytest.approx(times.migration_start[j])
        longest[j] = max(longest[j], bar.get_width())
    assert len(migrations) == solution.received[slot].sum()
    assert longest == pytest.approx(judged.block_migration[slot])
    for line in artists(figure, "end of slot"):
        assert line.get_xdata()[0] == pytest.approx(judged.slot_delay[slot])


def test_some_slot_has_migrations_from_the_cloud_and_from_a_node() -> None:
    """The two sources look different: filled from a node, pale from the cloud."""
    instance = instance_of()
    solution = random_solution(instance, 0)
    bars = artists(slot_gantt(instance, solution), "migration", Rectangle)
    cloud = {to_hex(b.get_facecolor()) for b in bars if b.get_gid().endswith(" 2")}
    node = {to_hex(b.get_facecolor()) for b in bars if not b.get_gid().endswith(" 2")}
    assert len(cloud) == len(node) == 1
    assert cloud != node


def test_messages_on_the_air_at_once_are_stacked() -> None:
    """In every mode the bars lie on one another without a gap, from 0 up."""
    instance = instance_of(delivery="spatial")
    solution = random_solution(instance, 1)
    bars = artists(drawn(slot_gantt(instance, solution)), "message", Rectangle)
    modes = solution.broadcasts[0].mode
    assert np.bincount(modes).max() > 1
    for m in np.unique(modes):
        of_mode = [bar for bar, mode in zip(bars, modes, strict=True) if mode == m]
        top = 0.0
        for bar in of_mode:
            assert bar.get_y() == pytest.approx(top)
            top += bar.get_height()


def test_many_messages_are_drawn_without_labels() -> None:
    """Of 400 messages in one slot every one has its bar, and none a text that does not fit."""
    instance = instance_of()
    count = 400
    broadcast = Broadcast(
        users=np.ones((count, 3), dtype=bool),
        nodes=np.ones((count, 2), dtype=bool),
        blocks=np.ones((count, 6), dtype=bool),
        duration=np.full(count, 0.01),
        mode=np.arange(count),
        message=np.arange(count),
        beam=np.ones((count, 2, 2), dtype=np.complex128),
        rate=np.full(count, 3e8),
    )
    solution = replace(random_solution(instance, 0), broadcasts=(broadcast,))
    figure = drawn(slot_gantt(instance, solution))
    assert len(artists(figure, "message", Rectangle)) == count
    assert not any("user" in text for text in texts(figure))


def test_a_dead_link_never_delivers() -> None:
    """A migration over a link of rate 0 takes for ever: it is marked, the rest is drawn."""
    instance = instance_of(schedule="pipelined")
    solution = random_solution(instance, 0)
    network = replace(instance.network, backhaul_rate=np.zeros((2, 2)))
    figure = drawn(slot_gantt(replace(instance, network=network), solution))
    assert "never arrives" in texts(figure)
    assert any("NOT feasible" in text and "inf s" in text for text in texts(figure))


# --- the caches -----------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [0, 1])
def test_cache_bars_add_up_to_the_cached_bytes(
    solved: tuple[Instance, Solution], slot: int
) -> None:
    """Per node: cached bars sum to the cached bytes, shared ones to those of reusable blocks."""
    instance, solution = solved
    library = instance.library
    figure = drawn(cache_picture(instance, solution, slot))
    megabyte = 1e6
    for n in range(instance.nodes):
        row = [b for b in artists(figure, "Tiny", Rectangle) if round(b.get_y() + 0.31) == n]
        sums = {
            kind: megabyte * sum(b.get_width() for b in row if b.get_gid() == f"Tiny {kind}")
            for kind in ("shared", "own", "received shared", "received own")
        }
        size, reusable = library.block_size, library.block_models > 1
        held, received = solution.cache[slot, n], solution.received[slot, n]
        assert sums["shared"] == pytest.approx(size[held & reusable].sum())
        assert sums["own"] == pytest.approx(size[held & ~reusable].sum())
        assert sums["received shared"] == pytest.approx(
            library.block_size[received & reusable].sum()
        )
        assert sums["received own"] == pytest.approx(library.block_size[received & ~reusable].sum())
        (line,) = artists(figure, f"storage {n}")
        storage = line.get_xdata()[0]
        assert storage == pytest.approx(instance.network.storage[n] / megabyte)
        for bar in row:
            if "received" in bar.get_gid():
                assert bar.get_x() >= storage - 1e-9
            else:
                assert bar.get_x() + bar.get_width() <= storage + 1e-9
            assert bool(bar.get_hatch()) == bar.get_gid().endswith("shared")


def test_empty_caches_without_storage_are_drawn() -> None:
    """Nodes that store nothing, and slots in which nothing happens, are no reason to fail."""
    nodes = {"count": 2, "antennas": 2, "storage_gb": 0.0}
    instance = instance_of(nodes=nodes, demand={"activity": 0.0})
    solution = Solution(
        cache=np.zeros((1, 2, 6), dtype=bool),
        source=np.full((1, 2, 6), -1),
        broadcasts=(silence(3, 2, 6, 2),),
    )
    figure = drawn(overview(instance, solution))
    assert "nothing is sent in this slot" in texts(figure)
    assert "no migration in this slot" in texts(figure)
    assert "no request × 3" in texts(figure)


# --- the network ----------------------------------------------------------------------------


def test_users_stand_where_they_are_in_their_familys_colour() -> None:
    """Every user is a dot at its position, coloured by family, grey without a request."""
    instance = instance_of(users={"count": 8}, demand={"activity": 0.6})
    assert -1 in instance.requests[0]
    assert instance.user_position is not None
    colours = family_colours(instance.library)
    figure = network_picture(instance)
    dots = artists(figure, "user ")
    assert len(dots) == 8
    markers = {}
    for k, dot in enumerate(dots):
        m = int(instance.requests[0, k])
        assert (dot.get_xdata()[0], dot.get_ydata()[0]) == tuple(instance.user_position[k])
        expected = "#bbbbbb" if m < 0 else colours["Tiny"].lower()
        assert to_hex(dot.get_markerfacecolor()) == expected
        if m >= 0:
            assert markers.setdefault(m, dot.get_marker()) == dot.get_marker()
    assert len(set(markers.values())) == len(markers) > 1  # models differ by shape


def test_links_are_as_thick_as_they_are_fast() -> None:
    """One arrow per link of positive rate, with its rate in Gbit/s, the fastest the thickest."""
    instance = instance_of(nodes={"count": 3, "antennas": 1, "storage_gb": 0.002})
    rate = np.array([[0, 1e9, 8e9], [2e9, 0, 0], [4e9, 3e9, 0]])
    instance = replace(instance, network=replace(instance.network, backhaul_rate=rate))
    figure = network_picture(instance)
    widths = {
        tuple(int(i) for i in arrow.get_gid().split()[1::2]): arrow.get_linewidth()
        for arrow in artists(figure, "link ")
    }
    assert sorted(widths) == [(0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]
    for link, width in widths.items():
        assert width == pytest.approx(4.0 * rate[link] / 8e9)
    (fastest,) = artists(figure, "rate 0 to 2")
    assert fastest.get_text() == "8"
    (cloud,) = artists(figure, "node 1")
    assert f"cloud {instance.network.cloud_rate[1] / 1e9:.3g} Gbit/s" in cloud.get_text()


def test_cells_are_the_nearest_part_of_a_disc() -> None:
    """Two nodes 2 m apart, discs of 2 m: the border is at x = 0, each cell's area as by hand."""
    left, right = voronoi_cells(np.array([[-1.0, 0.0], [1.0, 0.0]]), 2.0)
    assert left[:, 0].max() == pytest.approx(0.0)
    assert right[:, 0].min() == pytest.approx(0.0)
    x, y = left.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    # Disc less the segment beyond the chord at distance 1: r^2 acos(1/2) - sqrt(3).
    expected = 4 * np.pi - (4 * np.arccos(0.5) - np.sqrt(3))
    assert area == pytest.approx(expected, rel=1e-3)  # a disc of 120 corners is 0.05% too small


def test_nodes_at_one_place_have_one_cell_each() -> None:
    """Coinciding nodes divide nothing: each keeps the disc, and the picture is drawn."""
    instance = instance_of()
    network = replace(instance.network, node_position=np.zeros((2, 2)))
    cells = layout_of(replace(instance, network=network)).cells
    assert [len(cell) for cell in cells] == [120, 120]
    drawn(network_picture(replace(instance, network=network, user_position=np.zeros((3, 2)))))


def test_without_positions_users_are_beside_their_strongest_node() -> None:
    """The schematic puts each user nearest to the node it receives with the largest amplitude."""
    nodes = {"count": 4, "antennas": 2, "storage_gb": 0.002}
    instance = instance_of(nodes=nodes, users={"count": 25})
    network = replace(instance.network, node_position=None)
    instance = replace(instance, network=network, user_position=None)
    layout = layout_of(instance)
    nearest = np.linalg.norm(layout.user[:, None] - layout.node, axis=2).argmin(axis=1)
    strongest = np.linalg.norm(instance.channel_estimate[0], axis=2).argmax(axis=1)
    assert nearest.tolist() == strongest.tolist()
    assert len(np.unique(np.round(layout.user, 6), axis=0)) == 25  # nobody hides another
    assert any("schematic" in text for text in texts(drawn(network_picture(instance))))


# --- readable, saved, refused ---------------------------------------------------------------


def assert_no_texts_overlap(figure: Figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    undrawn = {
        label
        for axes in figure.findobj(Axes)
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    boxes = [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in undrawn
    ]
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes:
        assert -1 <= box.x0 <= box.x1 <= width + 1, text
        assert -1 <= box.y0 <= box.y1 <= height + 1, text
    for (one, a), (other, b) in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        # Extents include the room for descenders, a few pixels are no overlap to the eye.
        assert across < 3 or up < 3, (one, other)


def test_no_texts_overlap_on_any_page(solved: tuple[Instance, Solution]) -> None:
    """On a page of everything and on each picture alone, texts lie apart and inside."""
    instance, solution = solved
    for figure in (
        overview(instance, solution),
        network_picture(instance),
        cache_picture(instance, solution),
        slot_gantt(instance, solution),
    ):
        assert_no_texts_overlap(figure)


def test_no_texts_overlap_with_four_nodes_and_twelve_users() -> None:
    """The size of the paper's scenario, with all twelve rates written into the links."""
    nodes = {"count": 4, "antennas": 2, "storage_gb": 0.002}
    instance = instance_of(nodes=nodes, users={"count": 12})
    figure = network_picture(instance)
    assert_no_texts_overlap(figure)
    assert len(artists(figure, "rate ")) == 12


def test_legends_cover_no_data(solved: tuple[Instance, Solution]) -> None:
    """No legend reaches into any axes."""
    figure = drawn(overview(*solved))
    legends = [legend for part in figure.subfigs for legend in part.legends]
    assert len(legends) == 3
    for legend in legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.bbox) for axes in figure.findobj() if axes in figure.axes)


def test_strange_and_long_names_are_drawn(tmp_path: Path) -> None:
    """Dollars, underscores, foreign letters and long names neither warn nor break the page."""
    instance = instance_of()
    library = replace(
        instance.library,
        model_names=("_$\\frac{$", "语言模型", "x" * 3000),
        model_family=("_$", "family " * 50, "家族"),
        block_names=tuple(f"${j}_{'w' * 400}" for j in range(6)),
    )
    instance = replace(instance, library=library, name="$\\frac{$\n" + "name " * 300)
    solution = random_solution(instance, 0)
    figure = overview(instance, solution)
    assert_no_texts_overlap(figure)
    for suffix in ("png", "svg", "pdf"):
        save_picture(figure, tmp_path / f"strange.{suffix}")


@pytest.mark.parametrize(
    ("name", "magic"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF")]
)
def test_the_suffix_says_the_format(tmp_path: Path, name: str, magic: bytes) -> None:
    """PNG, SVG and PDF, in either case; nothing else is left in the folder."""
    save_picture(network_picture(instance_of()), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_pictures_are_1600_pixels_wide(tmp_path: Path, solved: tuple[Instance, Solution]) -> None:
    """The width in a PNG's header, of a single picture and of the page."""
    for figure in (network_picture(solved[0]), overview(*solved)):
        save_picture(figure, tmp_path / "a.png")
        assert int.from_bytes((tmp_path / "a.png").read_bytes()[16:20], "big") == 1600


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.npz"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    """One line that names the file and what is allowed; nothing is written."""
    with pytest.raises(ValueError, match=r"suffix .* must be one of \.png, \.svg, \.pdf") as error:
        save_picture(network_picture(instance_of()), tmp_path / name)
    assert "\n" not in str(error.value)
    assert name in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """One line from the file layer, no traceback of matplotlib."""
    with pytest.raises(FormatError, match="cannot be written"):
        save_picture(network_picture(instance_of()), tmp_path / "nowhere" / "a.png")


@pytest.mark.parametrize("slot", [-1, 2])
def test_a_slot_out_of_range_is_refused(solved: tuple[Instance, Solution], slot: int) -> None:
    """Every picture says which slots there are."""
    instance, solution = solved
    for draw in (
        lambda: network_picture(instance, slot),
        lambda: cache_picture(instance, solution, slot),
        lambda: slot_gantt(instance, solution, slot),
        lambda: overview(instance, solution, slot),
        lambda: overview(instance, slot=slot),
    ):
        with pytest.raises(ValueError, match=rf"^slot: {slot} is not allowed, must be 0 to 1$"):
            draw()


def test_a_solution_of_another_shape_is_refused(solved: tuple[Instance, Solution]) -> None:
    """One line with both shapes."""
    other = instance_of()
    for draw in (cache_picture, slot_gantt, overview):
        with pytest.raises(ValueError, match=r"shape \(2, 2, 6\), the instance needs \(1, 2, 6\)"):
            draw(other, solved[1])


def test_no_pyplot_and_no_global_state() -> None:
    """Drawing and saving never import pyplot, which would keep figures and pick a display."""
    code = (
        "import sys, io; import finecast.pictures; from matplotlib.figure import Figure;"
        "Figure().savefig(io.BytesIO(), format='png');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
