"""The rate table: monotone, bounded, the same from disk."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
from repository import TINY
from searched_once import remember_beams

from finecast.problem.files import read_archive, write_archive
from finecast.problem.instance import Instance, user_groups
from finecast.problem.scenario import Scenario, read_scenario
from finecast.solvers.beamforming import by_name
from finecast.solvers.beamforming.by_name import solve_messages
from finecast.solvers.beamforming.matched import solve_matched
from finecast.solvers.beamforming.worst_case import worst_case_snr
from finecast.solvers.deadline import BATCH_WORK, Deadline
from finecast.solvers.kept_rates import FORMAT, VERSION
from finecast.solvers.rate_table import node_set_family, node_sets_to_solve, rate_table
from finecast.solvers.rates import SlotRates


@pytest.fixture(autouse=True)
def _beams_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember_beams(monkeypatch)


def table(instance: Instance, **options: object) -> tuple[SlotRates, ...]:
    """Return the rates of an instance's user groups."""
    users = [user_groups(wanted)[0] for wanted in instance.wanted]
    return rate_table(instance, users, node_sets_to_solve(instance, users, True), **options)


def uncertain(seed: int, error: float) -> Instance:
    """Return the tiny instance with errors of a share of each channel's norm."""
    instance = read_scenario(TINY).generate(seed)
    radius = error * np.linalg.norm(instance.channel_estimate, axis=3)
    return replace(instance, channel_error=radius, channel_true=instance.channel_estimate)


def wide(nodes: int) -> Instance:
    """Return an instance with many nodes and few users."""
    sections = {
        "library": {"file": "../libraries/tiny.json"},
        "nodes": {"count": nodes, "antennas": 1},
        "users": {"count": 3},
    }
    scenario = Scenario.model_validate(sections)
    scenario._path = TINY
    return scenario.generate(0)


def test_monotone_and_bounded():
    """More nodes are never worse, achieved rates never exceed their certified bounds."""
    for slot in table(read_scenario(TINY).generate(1)):
        assert (slot.achieved <= slot.bound * (1 + 1e-12)).all()
        for node_set in range(4):
            for n in range(2):
                more = node_set | 1 << n
                assert (slot.achieved[:, more] >= slot.achieved[:, node_set]).all()
                assert (slot.bound[:, more] >= slot.bound[:, node_set]).all()
        assert (slot.achieved[:, 0] == 0).all()
        assert (slot.bound[:, 0] == 0).all()


def test_beams_reach_what_the_table_says():
    """The beam of every solved set reaches its SNR by the closed form, from its nodes only."""
    instance = read_scenario(TINY).generate(1)
    (slot,) = table(instance)
    for g, users in enumerate(slot.users):
        for f, node_set in enumerate(slot.node_sets[g]):
            beam = slot.beam[g, f]
            outside = ~(node_set >> np.arange(instance.nodes) & 1).astype(bool)
            assert (beam[outside] == 0).all()
            power = np.sum(np.abs(beam) ** 2, axis=1)
            assert (power <= instance.network.power * (1 + 1e-12)).all()
            reached = worst_case_snr(
                instance.normalised_channel[0, users], instance.normalised_error[0, users], beam
            )
            assert reached == pytest.approx(slot.snr[g, f], rel=1e-9)


def test_family_beyond_six_nodes():
    """All sets up to 6 nodes; singles, pairs, neighbourhoods and the full set beyond."""
    assert len(node_set_family(wide(6))) == 63
    family = node_set_family(wide(8))
    assert len(set(family.tolist())) == len(family)
    assert {1 << n for n in range(8)} <= set(family.tolist())
    assert 255 in family
    sizes = [int(s).bit_count() for s in family]
    assert sizes.count(2) == 28
    assert 1 <= sizes.count(3) <= 8


def test_closure_beyond_six_nodes():
    """A set outside the family has the best rate of the solved sets within it, and inherits its
    bound from the solved sets around it, or from what its slowest user gets alone."""
    instance = wide(7)
    (slot,) = table(instance)
    for node_set in (0b1101100, 0b0011111):
        within = [f for f, s in enumerate(slot.node_sets[0]) if s & node_set == s]
        around = [f for f, s in enumerate(slot.node_sets[0]) if s & node_set == node_set]
        best = slot.node_sets[0, slot.best[:, node_set]]
        assert all(b & node_set == b for b in best)
        cap = instance.network.max_spectral_efficiency
        achieved = np.minimum(cap, np.log2(1 + slot.snr[:, within].max(axis=1)))
        alone = slot.reach[:, [n for n in range(7) if node_set >> n & 1]].sum(axis=1) ** 2
        slowest = np.where(slot.users, alone, np.inf).min(axis=1)
        snr_bound = np.minimum(slot.snr_bound[:, around].min(axis=1), slowest)
        bound = np.minimum(cap, np.log2(1 + snr_bound))
        assert slot.achieved[:, node_set] == pytest.approx(instance.network.bandwidth * achieved)
        assert slot.bound[:, node_set] == pytest.approx(instance.network.bandwidth * bound)


@pytest.mark.parametrize("left", [1e-2, 1e-5, 1e-8, 1e-11, 1e-13])
def test_bounds_hold_where_errors_leave_next_to_nothing_of_a_channel(left):
    """One user, one node: R = W log2(1 + P (|g| - eps)^2), to 60 digits, is never above the bound.

    The difference keeps the rounding of two nearly equal numbers.
    """
    drawn = read_scenario(TINY).generate(1)
    drawn = replace(drawn, network=replace(drawn.network, max_spectral_efficiency=np.inf))
    rng = np.random.default_rng(7)
    users = [np.eye(drawn.users, dtype=bool)]
    sets = [np.broadcast_to(1 << np.arange(drawn.nodes), (drawn.users, drawn.nodes))]
    for _ in range(3):
        channel = rng.normal(size=(*drawn.channel_estimate.shape, 2)) @ [1.0, 1j]
        channel *= np.sqrt(drawn.network.noise_power)
        error = np.linalg.norm(channel, axis=3) * (1 - left)
        instance = replace(
            drawn, channel_estimate=channel, channel_true=channel, channel_error=error
        )
        (slot,) = rate_table(instance, users, sets)
        g, eps = instance.normalised_channel[0], instance.normalised_error[0]
        for k, n in np.ndindex(drawn.users, drawn.nodes):
            exact = _alone(g[k, n], eps[k, n], instance.network.power[n])
            bits = Decimal(slot.bound[k, 1 << n] / instance.network.bandwidth)
            assert 2**bits - 1 >= exact * (1 - Decimal("1e-12")) or exact < 1e-12
            assert Decimal(slot.reach[k, n]) ** 2 >= exact


def _alone(channel, error, power) -> Decimal:
    """Return P (|g| - eps)^2 to 60 digits."""
    with localcontext() as precision:
        precision.prec = 60
        parts = [*channel.real.tolist(), *channel.imag.tolist()]
        norm = sum(Decimal(x) ** 2 for x in parts).sqrt()
        return Decimal(power) * max(norm - Decimal(error), Decimal(0)) ** 2


def rewritten(folder, change) -> None:
    """Change the arrays of the only table in a folder."""
    (path,) = folder.iterdir()
    header, arrays = read_archive(path, FORMAT, VERSION)
    write_archive(path, FORMAT, VERSION, header, {**arrays, **change(arrays)})


def searches(monkeypatch) -> list[int]:
    """Return a list that grows with every search for beams."""
    calls = []

    def counted(*args, **options):
        calls.append(1)
        return solve_messages(*args, **options)

    monkeypatch.setattr("finecast.solvers.rate_search.solve_messages", counted)
    return calls


@pytest.mark.parametrize("beamforming", ["multicast", "matched"])
@pytest.mark.parametrize("error", [0.0, 0.5])
def test_kept_on_disk(tmp_path, monkeypatch, error, beamforming):
    """A second table has the beams of the first and, proven again, its bounds.

    A damaged file is made anew, and other rates have a file of their own."""
    instance = uncertain(3, error)
    calls = searches(monkeypatch)
    first = table(instance, beamforming=beamforming, cache=tmp_path)
    assert calls
    (kept,) = tmp_path.iterdir()
    calls.clear()
    second = table(instance, beamforming=beamforming, cache=tmp_path)
    assert not calls
    assert np.array_equal(first[0].beam, second[0].beam)
    assert first[0].snr == pytest.approx(second[0].snr, rel=1e-9)
    # Branching ends within its tolerance of what the beams reach.
    assert first[0].bound == pytest.approx(second[0].bound, rel=1e-3 if error else 1e-9)
    assert (second[0].achieved <= second[0].bound * (1 + 1e-12)).all()
    kept.write_bytes(kept.read_bytes()[:-100])
    third = table(instance, beamforming=beamforming, cache=tmp_path)
    assert calls
    assert np.array_equal(first[0].beam, third[0].beam)
    table(instance, beamforming=beamforming, cache=tmp_path, robust=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_number_is_kept_that_could_be_forged(tmp_path):
    """A file holds beams and dual points; neither rates nor bounds."""
    table(read_scenario(TINY).generate(3), cache=tmp_path)
    (path,) = tmp_path.iterdir()
    assert set(read_archive(path, FORMAT, VERSION)[1]) == {"beam", "weight", "slope", "price"}


@pytest.mark.parametrize(
    "forged",
    [
        lambda arrays: {"price": arrays["price"] / 2},
        lambda arrays: {"slope": arrays["slope"] * 2},
        lambda arrays: {"slope": arrays["slope"] * 1e300, "price": np.zeros_like(arrays["price"])},
        lambda arrays: {"weight": arrays["weight"] / 3},
        lambda arrays: {"weight": arrays["weight"][..., ::-1].copy()},
        lambda arrays: {"weight": -arrays["weight"], "price": -arrays["price"]},
        lambda arrays: {"weight": arrays["weight"] * np.nan},
        lambda arrays: {"price": arrays["price"] * np.inf},
        lambda arrays: {name: np.zeros_like(x) for name, x in arrays.items()},
        lambda arrays: {"beam": arrays["beam"] / 2},
        # A bound between what the kept beams reach and what there is would pass unnoticed.
        lambda arrays: {"beam": arrays["beam"] / 2, "price": arrays["price"] / 2},
    ],
)
@pytest.mark.parametrize("error", [0.1, 0.6])
def test_forged_tables_prove_nothing_wrong(tmp_path, forged, error):
    """Whatever dual points stand in the file, no bound is below what true beams reach."""
    instance = uncertain(3, error)
    (true,) = table(instance, cache=tmp_path)
    rewritten(tmp_path, forged)
    (again,) = table(instance, cache=tmp_path)
    assert (again.bound >= true.achieved * (1 - 1e-12)).all()
    assert (again.snr_bound >= true.snr * (1 - 1e-12)).all()
    assert (again.achieved <= again.bound * (1 + 1e-12)).all()
    # No beam is said to reach more than it does.
    for (g, f), snr in np.ndenumerate(again.snr):
        users = again.users[g]
        reached = worst_case_snr(
            instance.normalised_channel[0, users],
            instance.normalised_error[0, users],
            again.beam[g, f],
        )
        assert snr == pytest.approx(reached, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "forged",
    [
        lambda arrays: {"beam": 2 * arrays["beam"]},
        lambda arrays: {"beam": arrays["beam"][:, ::-1].copy()},
        lambda arrays: {"beam": arrays["beam"] * np.nan},
        lambda arrays: {"price": arrays["price"][:1]},
        lambda arrays: {"price": arrays["price"].astype(str)},
        lambda arrays: {"beam": arrays["beam"].real.copy()},
    ],
)
def test_tables_of_no_use_are_made_anew(tmp_path, monkeypatch, forged):
    """Beams above a power limit, or of nodes that do not send, no numbers, other shapes."""
    instance = read_scenario(TINY).generate(3)
    (true,) = table(instance, cache=tmp_path)
    rewritten(tmp_path, forged)
    calls = searches(monkeypatch)
    (again,) = table(instance, cache=tmp_path)
    assert calls
    assert np.array_equal(again.snr, true.snr)
    assert np.array_equal(again.bound, true.bound)


def test_versions_are_in_the_key(tmp_path, monkeypatch):
    """A table of another finecast, or of another kernel, is not looked at."""
    instance = read_scenario(TINY).generate(3)
    table(instance, cache=tmp_path)
    monkeypatch.setattr("finecast.solvers.kept_rates.FINECAST_VERSION", "0")
    table(instance, cache=tmp_path)
    monkeypatch.setattr("finecast.solvers.kept_rates._code_hash", lambda: "another")
    table(instance, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_unknown_method_is_refused():
    """The error names the method and those there are."""
    with pytest.raises(ValueError, match=r"beamforming: 'magic'.*multicast.*sdr"):
        table(read_scenario(TINY).generate(0), beamforming="magic")


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_no_time_at_all_is_a_valid_table(error, tmp_path):
    """Everybody is served, nothing exceeds the bounds of the whole table, and nothing is kept."""
    instance = uncertain(2, error)
    whole = table(instance)
    hurried = table(instance, deadline=Deadline.after(0.0), cache=tmp_path)
    assert not list(tmp_path.iterdir())
    for slot, full in zip(hurried, whole, strict=True):
        assert np.isinf(slot.snr_bound).all()
        assert (slot.achieved <= full.bound * (1 + 1e-12)).all()
        assert (full.achieved <= slot.bound * (1 + 1e-12)).all()
        assert (slot.achieved[:, -1] > 0).all()


def test_time_enough_is_the_whole_table():
    """A limit that is not reached changes nothing, to the bit."""
    instance = uncertain(1, 0.1)
    limited = table(instance, deadline=Deadline.after(3600.0))
    for slot, full in zip(limited, table(instance), strict=True):
        for name in ("achieved", "bound", "beam", "snr"):
            assert np.array_equal(getattr(slot, name), getattr(full, name))


def test_slow_beams_look_at_the_limit_after_each_message(monkeypatch):
    """Beams that take a second each may not go on for a whole batch after the limit."""
    solved = []

    def load(name):
        def solve(channel, *args, **given):
            solved.append(name)
            return solve_matched(channel, *args, **given)

        return solve

    monkeypatch.setattr(by_name, "_load", load)
    instance = read_scenario("vision-small").generate(seed=0)
    rates = table(instance, beamforming="sdr", deadline=Deadline.after(None, 5 * BATCH_WORK))
    assert 0 < solved.count("sdr") <= 5
    assert all((slot.achieved[:, -1] > 0).all() for slot in rates)  # in closed form from all nodes
