"""Scenarios: every shipped one draws valid instances, seeds vary one part at a time."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import ROOT

from finecast.problem.areas import area_notes, partition
from finecast.problem.files import FormatError
from finecast.problem.instance import read_instance, write_instance
from finecast.problem.scenario import Scenario, read_scenario

SHIPPED = sorted((ROOT / "data" / "scenarios").glob("*.toml"))
TINY = {"library": {"file": "../libraries/tiny.json"}}


def scenario(**sections: object) -> Scenario:
    """Return a scenario on the shipped tiny library."""
    made = Scenario.model_validate({**TINY, **sections})
    made._path = ROOT / "data" / "scenarios" / "test.toml"
    return made


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_draw(path, tmp_path):
    """Every shipped scenario draws valid instances that survive a file, and differ by seed."""
    made = read_scenario(path)
    first, again, other = made.generate(0), made.generate(0), made.generate(1)
    assert first.content_hash == again.content_hash
    assert first.content_hash != other.content_hash
    write_instance(tmp_path / "i.npz", first)
    assert read_instance(tmp_path / "i.npz").content_hash == first.content_hash
    assert first.name == path.stem


def test_shipped_scenarios_are_those_named():
    """The scenarios that the documentation names are there, with their stated sizes."""
    assert [path.stem for path in SHIPPED] == [
        "city-19",
        "city-199",
        "city-61",
        "city-center",
        "llm",
        "paper-regime",
        "periodic",
        "persist",
        "tiny",
        "vision-horizon",
        "vision-small",
    ]
    small = read_scenario(ROOT / "data/scenarios/vision-small.toml").generate(0)
    assert (small.nodes, small.antennas, small.users, small.slots) == (4, 4, 12, 1)
    assert small.network.storage.min() == 2_000_000_000
    assert small.network.storage.max() == 8_000_000_000
    tiny = read_scenario(ROOT / "data/scenarios/tiny.toml").generate(0)
    assert (tiny.nodes, tiny.blocks) == (2, 6)
    assert read_scenario(ROOT / "data/scenarios/persist.toml").slots == 20
    for nodes, most, areas in ((19, 6, 4), (61, 4, 16), (199, 4, 50)):
        city = read_scenario(f"city-{nodes}").generate(0)
        assert (city.nodes, city.users, city.area_count) == (nodes, 4 * nodes, areas)
        assert np.bincount(city.areas).max() <= most


def test_same_draw_in_another_process():
    """Bit for bit the same instance on every run: nothing depends on hash order or global state."""
    code = (
        "from finecast.problem.scenario import read_scenario\n"
        f"print(read_scenario({str(SHIPPED[-1])!r}).generate(7).content_hash)\n"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in (1, 2)
    }
    assert hashes == {read_scenario(SHIPPED[-1]).generate(7).content_hash}


def test_parts_vary_one_at_a_time():
    """Changing one part of a scenario leaves the draws of the other parts alone."""
    base = scenario(slots=3, users={"count": 5}).generate(4)
    other_links = scenario(slots=3, users={"count": 5}, links={"cloud_gbps": 0.3}).generate(4)
    assert np.array_equal(base.channel_estimate, other_links.channel_estimate)
    assert np.array_equal(base.requests, other_links.requests)
    assert not np.array_equal(base.network.cloud_rate, other_links.network.cloud_rate)
    with_error = scenario(slots=3, users={"count": 5}, channel={"error": 0.1}).generate(4)
    assert np.array_equal(base.channel_estimate, with_error.channel_estimate)
    assert np.array_equal(base.channel_true, base.channel_estimate)
    assert not np.array_equal(with_error.channel_true, with_error.channel_estimate)
    flatter = scenario(slots=3, users={"count": 5}, demand={"zipf": 0.1}).generate(4)
    assert np.array_equal(base.channel_estimate, flatter.channel_estimate)
    assert np.array_equal(base.user_position, flatter.user_position)


def test_units_are_converted_once():
    """30 dBm is 1 W; 100 MHz at 9 dB is -85 dBm of noise; 2 Gbit/s is 2e9; 1.5 GB is 1.5e9 byte."""
    made = scenario(
        nodes={"power_dbm": 30.0, "storage_gb": 1.5},
        radio={"bandwidth_mhz": 100.0, "noise_figure_db": 9.0},
        links={"backhaul_gbps": 2.0, "cloud_gbps": 0.5},
    ).generate(0)
    assert made.network.power == pytest.approx([1.0] * 4)
    assert 10 * np.log10(made.network.noise_power * 1e3) == pytest.approx(-85.0)
    assert (made.network.cloud_rate == 0.5e9).all()
    assert made.network.backhaul_rate[0, 1] == 2e9
    assert (made.network.storage == 1_500_000_000).all()


def test_storage_share_counts_each_block_once():
    """storage_share = 0.5 is half of the de-duplicated library: 3.5 MB in blocks, so 1.75 MB."""
    made = scenario(nodes={"storage_share": 0.5}).generate(0)
    assert made.library.block_size.sum() == 3_500_000
    assert (made.network.storage == 1_750_000).all()


def test_trace_takes_the_place_of_requests(tmp_path):
    """Requests come from the CSV, by model name or index; everything else is drawn as before."""
    (tmp_path / "trace.csv").write_text("slot,user,model\n0,1,birds\n1,0,0\n")
    made = scenario(slots=2, users={"count": 2}, demand={"trace": str(tmp_path / "trace.csv")})
    assert made.generate(0).requests.tolist() == [[-1, 2], [0, -1]]


def test_measured_channels_are_read(tmp_path):
    """Channels from a file are the estimates; the error is drawn inside the stated balls."""
    rng = np.random.default_rng(0)
    channel = 1e-5 * (rng.normal(size=(1, 2, 4, 3)) + 1j * rng.normal(size=(1, 2, 4, 3)))
    np.savez(tmp_path / "h.npz", channel=channel)
    sections = {"users": {"count": 2}, "nodes": {"antennas": 3}}
    made = scenario(**sections, channel={"file": str(tmp_path / "h.npz"), "error": 0.1}).generate(0)
    assert np.array_equal(made.channel_estimate, channel)
    assert made.channel_error == pytest.approx(0.1 * np.linalg.norm(channel, axis=3))
    with pytest.raises(FormatError, match=r"h\.npz.*\(1, 3, 4, 3\)"):
        scenario(
            users={"count": 3},
            nodes={"antennas": 3},
            channel={"file": str(tmp_path / "h.npz")},
        ).generate(0)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from(["umi", "uma", "iid"]),
    st.floats(0, 1.5),
    st.floats(0, 1),
)
def test_every_instance_is_valid(seed, nodes, antennas, users, slots, environment, error, share):
    """Whatever the scenario, the instance passes its own validation (it is built by it)."""
    made = scenario(
        slots=slots,
        nodes={"count": nodes, "antennas": antennas, "storage_share": share},
        users={"count": users, "min_distance_m": 35.0},
        channel={"environment": environment, "error": error},
        demand={"persistence": share, "tastes": share, "drift": share, "activity": share},
    ).generate(seed)
    assert made.channel_estimate.shape == (slots, users, nodes, antennas)
    assert made.popularity.sum(axis=2) == pytest.approx(np.full((slots, users), share))


def test_with_changes_what_is_named():
    """Sections are merged key by key, dotted keys too; the rest stays, files found as before."""
    tiny = read_scenario("tiny")
    changed = tiny.with_({"nodes.power_dbm": 20.0, "slots": 3}, users={"count": 6})
    assert (changed.nodes.power_dbm, changed.slots, changed.users.count) == (20.0, 3, 6)
    before, after = tiny.model_dump(), changed.model_dump()
    for table in (before, after):
        del table["slots"], table["users"]["count"], table["nodes"]["power_dbm"]
    assert before == after
    assert tiny.users.count != 6
    assert changed.generate(0).users == 6  # its library lies beside the scenario's file
    assert tiny.with_().generate(5).content_hash == tiny.generate(5).content_hash
    assert tiny.with_(demand=changed.demand).demand == tiny.demand


def test_with_replaces_the_library():
    """A library has one source: another one takes the place of the first."""
    made_up = read_scenario("tiny").with_(library={"synthetic": {"models": 3, "blocks": 9}})
    assert made_up.library.file is None
    assert made_up.generate(0).library.blocks == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": {"storag_gb": 9}}, "nodes.storag_gb: unknown key; did you mean 'storage_gb'?"),
        ({"nodes.storag_gb": 9}, "nodes.storag_gb: unknown key; did you mean 'storage_gb'?"),
        ({"storag_gb": 9}, "storag_gb: unknown key; known are name, description, slots"),
        ({"user.count": 9}, "user: unknown key; did you mean 'users'?"),
        ({"users.count": 0}, "users.count: 0: input should be greater than or equal to 1"),
        ({"slots.count": 2}, "slots.count: 'slots' has no values of its own"),
        ({"library.families": [{"backbon": "x"}]}, "library.families.0.backbone: is missing"),
        (
            {"library": {"families": [{"backbone": "x", "variant": 2}]}},
            "library.families.0.variant: unknown key; did you mean 'variants'?",
        ),
        ({"nodes.storage_gb": 1, "nodes.storage_share": 0.5}, "give either 'storage_gb' or"),
    ],
)
def test_with_refuses_as_a_file_does(changes, message):
    """One line with the key, what may have been meant, and what is allowed."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_scenario("tiny").with_(changes)
    assert "\n" not in str(caught.value)


def test_paths_share_the_network():
    """Another path changes requests, fading and CSI errors, and nothing else, bit for bit."""
    made = scenario(
        slots=4, channel={"error": 0.05}, users={"count": 6}, demand={"tastes": 0.5, "drift": 0.3}
    )
    own, first, again, second = (made.generate(5, path) for path in (None, 0, 0, 1))
    assert first.content_hash == again.content_hash
    assert len({own.content_hash, first.content_hash, second.content_hash}) == 3
    for other in (first, second):
        assert np.array_equal(other.user_position, own.user_position)
        assert np.array_equal(other.demand.preference, own.demand.preference)
        for name in ("storage", "backhaul_rate", "cloud_rate", "node_position"):
            assert np.array_equal(getattr(other.network, name), getattr(own.network, name))
        assert not np.array_equal(other.requests, own.requests)
        assert not np.array_equal(other.channel_estimate, own.channel_estimate)
    offset = [
        (one.channel_true - one.channel_estimate) / one.channel_error[..., None]
        for one in (first, second)
    ]
    assert not np.allclose(*offset)


def test_paths_are_draws_of_the_same_large_scale():
    """The mean channel power of a link over many paths is that over many other paths."""
    made = scenario(slots=20, channel={"correlation": 0.5}, users={"count": 4})
    power = [
        np.mean(
            [
                np.sum(abs(made.generate(3, p).channel_estimate) ** 2, axis=3).mean(axis=0)
                for p in r
            ],
            axis=0,
        )
        for r in (range(40), range(40, 80))
    ]
    assert np.allclose(power[0], power[1], rtol=0.25)


@pytest.mark.parametrize("path", [-1, 2**63])
def test_path_out_of_range(path):
    """A path number must be a seed's number."""
    with pytest.raises(ValueError, match=r"^path: "):
        scenario().generate(0, path)


def test_areas_of_a_size():
    """At most so many nodes, as equal as can be, each number used; the same on every path.

    Other places of the users leave the areas alone too: they belong to the network.
    """
    for nodes, size in ((7, 3), (19, 6), (12, 4), (5, 1), (5, 5), (5, 9)):
        made = scenario(
            nodes={"count": nodes, "areas": size}, users={"count": 20}, channel={"error": 0.05}
        )
        instance = made.generate(3)
        sizes = np.bincount(instance.areas)
        assert len(sizes) == -(-nodes // size)
        assert sizes.max() <= size
        assert sizes.max() - sizes.min() <= 1
        for other in (made.generate(3, 0), made.generate(3, 1, 2)):
            assert other.areas.tolist() == instance.areas.tolist()
        if size >= nodes:
            whole = made.with_({"nodes.areas": "none"}).generate(3)
            assert instance.content_hash == whole.content_hash


def test_areas_are_near_and_coupled():
    """Two clusters of nodes 2 km apart are two areas, whatever the order of the nodes.

    Four nodes on a square are cut from left to right, if nothing else is known. Users between the
    lower two and between the upper two make an area of each.
    """
    positions = [[0, 0], [2000, 0], [100, 0], [2100, 0], [0, 100], [2000, 100]]
    made = scenario(nodes={"count": 6, "positions_m": positions, "areas": 3}, users={"count": 9})
    assert made.generate(0).areas.tolist() == [0, 1, 0, 1, 0, 1]
    square = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    assert partition(np.eye(4), square, 2).tolist() == [0, 1, 0, 1]
    gain = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    assert partition(gain, square, 2).tolist() == [0, 0, 1, 1]


def test_areas_of_lists():
    """Lists of nodes, in any order; the number of an area is its place in the list."""
    made = scenario(nodes={"count": 5, "areas": [[4, 0], [1], [3, 2]]}).generate(0)
    assert made.areas.tolist() == [0, 1, 2, 2, 0]


@pytest.mark.parametrize(
    ("areas", "message"),
    [
        ([[0, 1], [2]], "nodes: areas: node 3 is in no area, each node must be in one"),
        ([[0, 1], [1, 2, 3]], "nodes: areas: node 1 is in areas 0 and 1, each node must be in one"),
        ([[0, 1], [2, 3, 2]], "nodes: areas: node 2 is twice in area 1, each node must be in one"),
        ([[0, 1], [2, 3, 4]], "nodes: areas: area 1 has node 4, nodes are 0 to 3"),
        ([[0, 1, 2, 3], []], "nodes: areas: area 1 has no node, must have at least 1"),
        ("rings", "nodes.areas: 'rings': areas must be 'none', 'district', the most nodes"),
        (0, "nodes.areas: 0: areas must be 'none', 'district', the most nodes"),
        (2.5, "nodes.areas: 2.5: areas must be 'none'"),
        (True, "nodes.areas: True: areas must be 'none'"),
        ([], "nodes.areas: []: areas must be 'none'"),
        ([0, 1, 2, 3], "nodes.areas: [0, 1, 2, 3]: areas must be 'none'"),
        ([["0"]], "nodes.areas: [['0']]: areas must be 'none'"),
    ],
)
def test_areas_that_are_no_partition(areas, message):
    """One line with the key, what is wrong, and what is allowed."""
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        read_scenario("tiny").with_({"nodes.count": 4, "nodes.areas": areas})
    assert "\n" not in str(caught.value)


def test_large_areas_are_noted():
    """Above 8 nodes not every set is kept; one area is the problem of the formulation."""
    assert area_notes(np.zeros(20, int)) == ()
    assert area_notes(np.repeat([0, 1], 8)) == ()
    (note,) = area_notes(np.repeat([0, 1, 1], 6))
    assert note.startswith("area 1 has 12 nodes, more than the 8 of which every set is kept")
