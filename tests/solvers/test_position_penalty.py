"""The bound for unknown positions: by enumeration, means of zero, redraws, figures, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_online import TinySystem, tiny_system

import finecast
from finecast.solvers import penalties, position_penalty
from finecast.solvers.heuristics.expected import kinds
from finecast.solvers.online_bound import online_bound, path_bounds
from finecast.solvers.penalised import KAPPAS, trained_kappa
from finecast.solvers.penalties import FIRST_TRAINING_PATH, penalties_of, trained_programme
from finecast.solvers.placement.chains import chains
from finecast.solvers.placement.demand_programme import DemandProgramme
from finecast.solvers.placement.user_states import UserGroups

SMALL = finecast.read_scenario("tiny").with_(
    slots=2, nodes={"storage_share": 0.3}, users={"count": 3}, demand={"persistence": 0.6}
)


@pytest.fixture(autouse=True)
def fewer_draws():
    """Values of few training paths and redraws are good enough, and any are valid."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("penalties", "penalised"):
            patch.setattr(f"finecast.solvers.{module}.TRAINING_PATHS", 2)
        patch.setattr(position_penalty, "TRAINING_PLACES", 1)
        patch.setattr(position_penalty, "REDRAWS", 3)
        yield


def worlds() -> list[TinySystem]:
    """Return a system at two equally likely places of its users."""
    system = tiny_system(3, models=2, slots=2)
    return [system, replace(system, air=tiny_system(12, models=2, slots=2).air)]


def programme_of(system: TinySystem, prices: np.ndarray) -> DemandProgramme:
    """Return the programme of every kind of a tiny system."""
    return DemandProgramme(
        demand=system.demand,
        contains=kinds(system.model_blocks)[1],
        groups=UserGroups(np.arange(2)),
        broadcast=system.air,
        chains=chains(system.link),
        prices=prices,
    )


def of_joint_caches(system: TinySystem, value: np.ndarray) -> np.ndarray:
    """Return values (..., C, 2^N) of kinds, in seconds of the joint caches (..., S)."""
    kind, states = kinds(system.model_blocks)[0], system.joint()
    return sum(value[..., kind[j], states[:, j]] * size for j, size in enumerate(system.size))


def start_of(system: TinySystem) -> np.ndarray:
    """Return (S,) the least expected delay from every joint cache, places known after slot 0."""
    rows = np.array([(a, b) for a in range(2) for b in range(2)])
    return system.optimum()[1][0] @ system.step(0, None, rows)


def test_never_above_a_method_that_does_not_know_positions():
    """Over all places, redraws and requests: first bound < second <= the best of one x[0] for all.

    So it is below every method whose x[0] is the same at all places, whatever it does later.
    """
    systems = worlds()
    start = np.array([start_of(system) for system in systems])
    blind, sighted = start.mean(axis=0).min(), start.min(axis=1).mean()
    assert blind > sighted * 1.001  # positions are worth something here
    prices = np.random.default_rng(0).exponential(0.1, (2, 2))
    paths, chance = systems[0].paths()
    values, of_paths = [], []
    for system in systems:
        programme = programme_of(system, prices)
        values.append(of_joint_caches(system, position_penalty.start_values(programme)))
        of_paths.append(of_joint_caches(system, penalties_of(programme, paths)))
    first = second = 0.0
    for g, system in enumerate(systems):
        for p, path in enumerate(paths):
            first += chance[p] / 2 * system.inner(path, of_paths[g][p])
            for redrawn in values:  # one redraw, independent of the places
                penalty = of_paths[g][p].copy()
                penalty[0] += values[g] - redrawn
                second += chance[p] / 4 * system.inner(path, penalty)
    assert first <= sighted * (1 + 1e-9)
    assert first < second <= blind * (1 + 1e-9)


def test_exact_values_leave_nothing():
    """With the exact joint values, and the exact mean, every path gives the optimum of one x[0]."""
    systems = worlds()
    start = np.array([start_of(system) for system in systems])
    rows = np.array([(a, b) for a in range(2) for b in range(2)])
    row_of = {tuple(row): r for r, row in enumerate(rows)}
    for system in systems:
        values = system.optimum()[1]
        for path in system.paths()[0][::3]:
            penalty = np.empty(values.shape[:2])
            for t, row in enumerate(path):
                before = None if t == 0 else np.tile(path[t - 1], (len(rows), 1))
                mean = start.mean(axis=0) if t == 0 else values[t] @ system.step(t, before, rows)
                penalty[t] = values[t][:, row_of[tuple(row)]] - mean
            assert system.inner(path, penalty) == pytest.approx(start.mean(axis=0).min(), rel=1e-9)


@pytest.mark.parametrize("areas", ["user", "node"])
def test_places_are_redrawn_and_nothing_else(areas):
    """Positions and channels change; demand, requests, links and library do not."""
    scenario = SMALL.with_({"demand.taste_areas": areas, "demand.tastes": 0.5, "users.count": 9})
    own, again = scenario.generate(4, 1), scenario.generate(4, 1, places=0)
    assert not np.isclose(own.user_position, again.user_position).any()
    assert not np.isclose(own.channel_estimate, again.channel_estimate).any()
    assert np.array_equal(own.demand.preference, again.demand.preference)
    assert np.array_equal(own.requests, again.requests)
    assert np.array_equal(own.network.backhaul_rate, again.network.backhaul_rate)
    assert again.content_hash == scenario.generate(4, 1, places=0).content_hash
    assert again.content_hash != scenario.generate(4, 1, places=1).content_hash
    node = own.network.node_position
    homes = [
        np.linalg.norm(instance.user_position[:, None] - node, axis=2).argmin(axis=1)
        for instance in (own, again)
    ]
    assert np.array_equal(*homes) == (areas == "node")


@pytest.mark.parametrize("areas", ["user", "node"])
def test_the_penalty_has_mean_zero(areas):
    """Over networks, the mean of a fixed set is zero within its error."""
    scenario = SMALL.with_({"demand.taste_areas": areas, "demand.tastes": 0.5})
    found = np.stack(
        [
            position_penalty.position_penalty(scenario, seed)[:, 1:].mean(axis=0)
            for seed in range(12)
        ]
    )
    deviation = found.std(axis=0, ddof=1)
    assert (deviation > 0).all()
    assert np.abs(found.mean(axis=0) / deviation * np.sqrt(len(found))).max() < 4.0


def test_prices_never_see_the_places(monkeypatch):
    """The places of the network are drawn once, for their value, and no evaluated path is."""
    drawn = []
    usual = type(SMALL).generate

    def generate(self, seed=0, path=None, places=None):
        drawn.append((path, places))
        return usual(self, seed, path, places)

    priced = []
    best = penalties.best_storage_prices
    monkeypatch.setattr(type(SMALL), "generate", generate)
    monkeypatch.setattr(
        position_penalty,
        "best_storage_prices",
        lambda programme, path: priced.append(path) or best(programme, path),
    )
    position_penalty.position_penalty(SMALL, 5)
    assert [places for _, places in drawn] == [0, 1, 2, 3, None]
    assert min(path for path, _ in drawn) >= FIRST_TRAINING_PATH
    own = usual(SMALL, 5).user_position
    assert priced
    assert not any(np.array_equal(path.user_position, own) for path in priced)


def test_figures():
    """Gaps to the second bound are never below zero; values are differences, path by path."""
    found = online_bound(
        SMALL, networks=2, paths=1, seed=5, unknown_positions=True, methods=["greedy-online"]
    )
    told = found.as_dict()
    for gap in found.gaps["greedy-online"]:
        assert gap.unknown_gap >= -1e-9 * gap.delay
    value = np.mean([p.unknown - p.online + p.luck_of_places for p in found.figures])
    assert told["value_of_positions"] == pytest.approx(value)
    unknown = np.mean([path.unknown for path in found.figures])
    assert told["online_bound_unknown_positions"] == pytest.approx(unknown)
    low, high = told["unknown_positions_interval"]
    assert low < unknown < high
    plain = online_bound(SMALL, networks=2, paths=1, seed=5).as_dict()
    assert plain["online_bound"] == told["online_bound"]
    assert "value_of_positions" not in plain


def test_refusals():
    """One network has one draw of positions; a file of channels has none."""
    with pytest.raises(ValueError, match=r"^networks: 1 is not allowed with unknown positions"):
        online_bound(SMALL, networks=1, unknown_positions=True)
    with pytest.raises(ValueError, match=r"^channel\.file: "):
        online_bound(SMALL.with_({"channel.file": "h.npz"}), unknown_positions=True)
    with pytest.raises(ValueError, match=r"^kappa: -1\.0 "):
        online_bound(SMALL, kappa=-1.0)


def test_kappa_of_training_paths(monkeypatch):
    """It is one of those tried, chosen without the evaluated paths, and used for the penalties."""
    programme = trained_programme(SMALL, 5)
    drawn = []
    usual = type(SMALL).generate

    def generate(self, seed=0, path=None, places=None):
        drawn.append(path)
        return usual(self, seed, path, places)

    with monkeypatch.context() as patch:
        patch.setattr(type(SMALL), "generate", generate)
        kappa = trained_kappa(programme, SMALL, 5)
    assert kappa in KAPPAS
    assert min(drawn) >= FIRST_TRAINING_PATH + 2  # nor those of the values
    bound = next(path_bounds(SMALL, [5], [0], kappa="auto"))
    charge = penalties_of(programme, bound.instance.requests[None])[0]
    assert bound.kappa == kappa
    assert bound.penalty == pytest.approx(kappa * charge)
