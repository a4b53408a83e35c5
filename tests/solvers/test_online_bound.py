"""The online bound: tiny systems by enumeration, telescoping, controlled gaps, partial answers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_online import TinySystem, tiny_system

import finecast
from finecast.problem.demand import sample
from finecast.solvers import online_bound as module
from finecast.solvers.bounds import price_bound
from finecast.solvers.heuristics.expected import kinds
from finecast.solvers.online_bound import (
    controlled_gap,
    online_bound,
    path_bounds,
)
from finecast.solvers.online_figures import clustered_mean
from finecast.solvers.penalised import hindsight_bound, penalised_bound
from finecast.solvers.penalties import (
    FIRST_TRAINING_PATH,
    kinds_of,
    penalties_of,
    trained_programme,
)
from finecast.solvers.placement.bound import Prices, dual_point
from finecast.solvers.placement.chains import chains, classes
from finecast.solvers.placement.demand_programme import DemandProgramme
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.placement.user_states import UserGroups
from finecast.solvers.prepared import prepare
from finecast.solvers.signals import SearchInterrupt

METHODS = ("greedy-online", "rolling", "lru", "greedy")

SMALL = finecast.read_scenario("tiny").with_(
    slots=3,
    nodes={"storage_share": 0.3},
    users={"count": 4},
    demand={"persistence": 0.6, "drift": 0.3, "tastes": 0.5},
    channel={"error": 0.02},
)


def programme_of(system: TinySystem, prices: np.ndarray) -> DemandProgramme:
    """Return the programme of a tiny system, which it models exactly."""
    return DemandProgramme(
        demand=system.demand,
        contains=kinds(system.model_blocks)[1],
        groups=UserGroups(np.arange(system.demand.users)),
        broadcast=system.air,
        chains=chains(system.link),
        prices=prices,
    )


def problem_of(system: TinySystem, path: np.ndarray) -> PlacementProblem:
    """Return the placement problem of a request path (T, K)."""
    blocks = len(system.size)
    group = np.array([[system.group(row, j) for j in range(blocks)] for row in path])
    table = system.air[:, 1:].T  # the group of nobody is no message
    return PlacementProblem(
        system.size, system.storage, group - 1, (table,) * len(path), system.link
    )


def prices_of(system: TinySystem, seed: int) -> np.ndarray:
    """Return the mean hindsight prices of some request paths, as a value function may have them."""
    paths, chance = system.paths()
    rng = np.random.default_rng(seed)
    chosen = paths[rng.choice(len(paths), 12, p=chance / chance.sum())]
    return np.mean(
        [hindsight_bound(problem_of(system, path))[0].storage for path in chosen], axis=0
    )


@pytest.mark.parametrize("seed", [3])
def test_bounds_of_tiny_systems(seed):
    """Over all request paths: hindsight <= online bound <= optimal online delay, by enumeration.

    The bounds cut blocks up to fill the storage, which for three blocks weighs most. So the inner
    minimum over whole blocks stands between; with it the online bound leaves little.
    """
    system = tiny_system(seed, models=2)
    paths, chance = system.paths()
    best, _ = system.optimum()
    kind = kinds(system.model_blocks)[0]
    penalty = penalties_of(programme_of(system, prices_of(system, seed)), paths)
    joint = joint_penalty(system, penalty)
    hindsight, online, whole, half, seen = np.empty((5, len(paths)))
    for p, path in enumerate(paths):
        problem = problem_of(system, path)
        start, hindsight[p] = hindsight_bound(problem)
        online[p] = penalised_bound(problem, kind, penalty[p], start)
        whole[p], half[p] = (system.inner(path, kappa * joint[p]) for kappa in (1.0, 0.5))
        seen[p] = system.inner(path, 0.0 * joint[p])
        assert online[p] <= whole[p] * (1 + 1e-9)
        assert hindsight[p] <= seen[p] * (1 + 1e-9)
    assert chance.sum() == pytest.approx(1.0)
    assert chance @ hindsight <= chance @ online <= chance @ whole
    for bound in (whole, half, seen):  # any kappa
        assert chance @ bound <= best * (1 + 1e-9)
    assert best - chance @ whole < 0.4 * (best - chance @ seen)


def joint_penalty(system: TinySystem, penalty: np.ndarray) -> np.ndarray:
    """Return the penalties (P, T, S) of joint caches, in seconds, of those of kinds."""
    states = system.joint()
    kind = kinds(system.model_blocks)[0]
    at = [penalty[:, :, kind[j], states[:, j]] * size for j, size in enumerate(system.size)]
    return np.sum(at, axis=0)


def test_no_penalty_is_the_hindsight_bound():
    """With penalties of zero the inner problem is the hindsight problem."""
    system = tiny_system(3, models=2)
    kind = kinds(system.model_blocks)[0]
    assert len(np.unique(kind)) == 3  # so that classes by kind are those by group
    for path in system.paths()[0][::9]:
        problem = problem_of(system, path)
        nothing = np.zeros((len(path), 3, system.sets))
        bound = hindsight_bound(problem)[1]
        assert penalised_bound(problem, kind, nothing) == pytest.approx(bound, rel=2e-4)


@pytest.mark.parametrize("seed", range(2))
def test_the_lagrangian_telescopes(seed):
    """At the prices of the values the Lagrangian is one number, whatever the path.

    It is sum_c s_c min over X of E[W_0(X, z_0)] - sum lambda S, for all 729 paths of requests.
    """
    system = tiny_system(seed)
    kind = kinds(system.model_blocks)[0]
    lam = np.random.default_rng(seed).exponential(0.3, (3, 2))
    programme = programme_of(system, lam)
    paths, _ = system.paths()
    penalty = penalties_of(programme, paths)
    found = np.empty(len(paths))
    for p, path in enumerate(paths):
        problem = problem_of(system, path)
        tables = classes(problem, kind)
        of_class = np.zeros(len(tables.size), dtype=int)
        of_class[tables.of_block] = kind
        charge = -penalty[p][:, of_class].transpose(0, 2, 1)
        found[p] = dual_point(problem, replace(tables, charge=charge), Prices(lam)).bound
    assert len(paths) == 729
    assert np.ptp(found) < 1e-9 * abs(found).max()
    # Nobody's programme says the same: it is the best of each block alone, by enumeration.
    alone = 0.0
    for j, size in enumerate(system.size):
        one = replace(
            system, size=np.array([1]), storage=np.array([1, 1]),
            model_blocks=system.model_blocks[:, [j]],
        )  # fmt: skip
        alone += size * _priced_optimum(one, lam)
    assert found[0] == pytest.approx(alone - (lam * system.storage).sum(), rel=1e-9)


def _priced_optimum(system: TinySystem, lam: np.ndarray) -> float:
    """Return the optimal expected cost of one block of one byte that pays rent, by enumeration."""
    slots, users, models = system.demand.preference.shape
    rows = np.array(list(itertools.product(range(models), repeat=users)))
    states = np.arange(system.sets)[:, None]
    costs = system.costs(rows, states)
    rent = lam @ ((np.arange(system.sets) >> np.arange(2)[:, None]) & 1)
    value = np.zeros((system.sets, len(rows)))
    for t in reversed(range(slots)):
        now = np.empty_like(value)
        for r, row in enumerate(rows):
            ahead = 0.0
            if t < slots - 1:
                ahead = value @ system.step(t + 1, np.tile(row, (len(rows), 1)), rows)
            now[:, r] = (costs[r] + ahead).min(axis=1) + rent[t]
        value = now
    return float((value @ system.step(0, None, rows)).min())


@pytest.mark.parametrize("seed", range(3))
def test_joint_values_leave_nothing(seed):
    """With the exact joint values the inner minimum is the optimal online delay on every path."""
    system = tiny_system(seed, models=2)
    best, values = system.optimum()
    paths, chance = system.paths()
    rows = np.array(list(itertools.product(range(2), repeat=2)))
    row_of = {tuple(row): r for r, row in enumerate(rows)}
    penalty = np.empty((len(paths), *values.shape[:2]))
    for p, path in enumerate(paths):
        for t in range(len(path)):
            before = None if t == 0 else np.tile(path[t - 1], (len(rows), 1))
            mean = values[t] @ system.step(t, before, rows)
            penalty[p, t] = values[t][:, row_of[tuple(path[t])]] - mean
        assert system.inner(path, penalty[p]) == pytest.approx(best, rel=1e-9)
    assert np.abs(np.tensordot(chance, penalty, 1)).max() < 1e-9


def test_room_for_everything():
    """Where storage binds nowhere the values are joint ones: the bound is tight on every path."""
    system = tiny_system(2, models=2, share=1.0)
    best, _ = system.optimum()
    paths, _ = system.paths()
    kind = kinds(system.model_blocks)[0]
    penalty = penalties_of(programme_of(system, np.zeros((3, 2))), paths)
    for p in range(0, len(paths), 5):
        found = penalised_bound(problem_of(system, paths[p]), kind, penalty[p])
        assert found == pytest.approx(best, rel=1e-4)


def test_penalties_have_mean_zero():
    """Given any past, the mean over the next requests is zero for every fixed set, to rounding."""
    system = tiny_system(3)
    paths, chance = system.paths()
    penalty = penalties_of(programme_of(system, prices_of(system, 3)), paths)
    scale = np.abs(penalty).max()
    assert scale > 0.1
    for t in range(3):
        past = [tuple(map(tuple, path[:t])) for path in paths]
        for known in set(past):
            rows = np.array([p == known for p in past])
            mean = np.tensordot(chance[rows], penalty[rows, t], 1) / chance[rows].sum()
            assert np.abs(mean).max() < 1e-9 * scale


def test_sampled_means_stay_below():
    """Means of draws of the next requests, in place of exact ones, loosen the bound in the mean."""
    rng = np.random.default_rng(0)
    below = []
    for seed in range(3):
        system = tiny_system(seed, models=2)
        best, values = system.optimum()
        paths, chance = system.paths()
        rows = np.array(list(itertools.product(range(2), repeat=2)))
        row_of = {tuple(row): r for r, row in enumerate(rows)}
        total = np.zeros(40)
        for repeat in range(len(total)):
            for p in rng.choice(len(paths), 8, p=chance / chance.sum()):
                penalty = np.empty(values.shape[:2])
                for t, row in enumerate(paths[p]):
                    before = None if t == 0 else np.tile(paths[p][t - 1], (len(rows), 1))
                    inner = rng.choice(len(rows), 2, p=system.step(t, before, rows))
                    penalty[t] = values[t][:, row_of[tuple(row)]] - values[t][:, inner].mean(axis=1)
                total[repeat] += system.inner(paths[p], penalty) / 8
        assert total.mean() <= best + 3 * total.std() / np.sqrt(len(total))
        below.append(total.mean() < best)
    assert sum(below) >= 2


@pytest.fixture(scope="module", autouse=True)
def fewer_training_paths():
    """Values of three training paths are good enough, and any are valid."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finecast.solvers.penalties.TRAINING_PATHS", 3)
        yield


@pytest.fixture(scope="module")
def small(fewer_training_paths):
    """Bounds of two networks with two paths each, and several methods on them."""
    return online_bound(SMALL, networks=2, paths=2, seed=5, methods=METHODS)


def test_controlled_gaps(small):
    """No method, online or not, is below the bound of a path once it has paid its penalties."""
    for method in METHODS:
        for gap in small.gaps[method]:
            assert gap.gap >= -1e-9 * gap.delay, (method, gap)
    assert {gap.bound for gap in small.gaps["lru"]} == {path.online for path in small.figures}


def test_figures(small):
    """The figures of a path are those of the path alone; means are means."""
    told = small.as_dict()
    assert [(path.network, path.path) for path in small.figures] == [
        (5, 0), (5, 1), (6, 0), (6, 1),
    ]  # fmt: skip
    assert told["online_bound"] == pytest.approx(np.mean([p.online for p in small.figures]))
    difference = told["online_bound"] - told["hindsight_bound"]
    assert told["value_of_information"] == pytest.approx(difference, rel=1e-9, abs=1e-9)
    bound = price_bound(prepare(SMALL.generate(6, 1)))  # by prices, as the online bound is
    assert small.figures[3].hindsight == pytest.approx(bound, rel=2e-4)
    assert told["interval"][0] < told["online_bound"] < told["interval"][1]
    assert told["ended"] == "completed"
    assert told["paths_used"] == told["paths_asked"] == 4
    again = online_bound(SMALL, networks=1, paths=1, seed=6)
    for name in ("online", "hindsight", "luck"):  # nothing depends on what else is asked for
        first, second = (getattr(path, name) for path in (again.figures[0], small.figures[2]))
        assert first == pytest.approx(second, rel=1e-9)


def test_kappa_of_zero(small):
    """kappa = 0 is the hindsight bound, exactly; the value of information is then 0."""
    plain = online_bound(SMALL, networks=1, paths=2, seed=5, kappa=0.0)
    assert [path.online for path in plain.figures] == [path.hindsight for path in plain.figures]
    assert [path.hindsight for path in plain.figures] == [p.hindsight for p in small.figures[:2]]
    assert plain.value_of_information.mean == 0.0


def test_training_paths_are_no_evaluated_paths(monkeypatch):
    """The values of a network are made before, and without, any evaluated path."""
    drawn = []
    usual = type(SMALL).generate

    def generate(self, seed=0, path=None):
        drawn.append(path)
        return usual(self, seed, path)

    monkeypatch.setattr(type(SMALL), "generate", generate)
    first = trained_programme(SMALL, 5)
    assert min(drawn) >= FIRST_TRAINING_PATH
    assert np.array_equal(first.prices, trained_programme(SMALL, 5).prices)
    with pytest.raises(ValueError, match=r"^paths: "):
        online_bound(SMALL, paths=FIRST_TRAINING_PATH + 1)


def test_bounds_do_not_run_by_the_clock(monkeypatch, small):
    """Where every look at the clock takes an hour, the bound of a path is the same."""
    hours = count(0.0, 3600.0)
    monkeypatch.setattr("finecast.solvers.deadline.time.monotonic", lambda: next(hours))
    found = next(path_bounds(SMALL, [5], [0]))
    assert found.hindsight == small.figures[0].hindsight
    assert found.online == pytest.approx(small.figures[0].online, rel=1e-12)


def test_partial_answers(monkeypatch):
    """Ctrl-C and a time limit leave the first paths in order, and say how many they are."""
    plain = online_bound(SMALL, networks=1, paths=3, kappa=0.0)
    usual = module.path_bound
    calls = count()

    def interrupted(*arguments):
        if next(calls) == 2:
            raise SearchInterrupt
        return usual(*arguments)

    monkeypatch.setattr(module, "path_bound", interrupted)
    found = online_bound(SMALL, networks=1, paths=9, kappa=0.0)
    assert (found.ended, found.asked) == ("interrupted", 9)
    assert found.figures == plain.figures[:2]
    monkeypatch.setattr(module, "path_bound", usual)
    with pytest.raises(ValueError, match=r"^time_limit: 0\.0 s were over before the first path"):
        online_bound(SMALL, kappa=0.0, time_limit=0.0)
    hours = count(0.0, 1.0)
    clock = SimpleNamespace(after=lambda limit: SimpleNamespace(over=lambda: next(hours) >= 2))
    monkeypatch.setattr(module, "Deadline", clock)
    found = online_bound(SMALL, networks=1, paths=9, kappa=0.0, time_limit=1.0)
    assert found.ended == "time_limit"
    assert found.figures == plain.figures[:2]


def test_a_search_interrupt_before_the_first_path(monkeypatch):
    """With nothing to show, Ctrl-C ends it as everywhere."""

    def interrupted(*arguments):
        raise SearchInterrupt

    monkeypatch.setattr(module, "path_bound", interrupted)
    with pytest.raises(KeyboardInterrupt):
        online_bound(SMALL, kappa=0.0)


@pytest.mark.parametrize(
    ("changes", "keywords", "line"),
    [
        ({"delivery": "spatial"}, {}, r"^delivery: 'spatial'"),
        ({"demand.trace": "x.csv"}, {}, r"^demand\.trace: "),
        ({"nodes.count": 11}, {}, r"^nodes\.count: 11 "),
        ({}, {"kappa": -1.0}, r"^kappa: -1\.0 "),
        ({}, {"kappa": math.nan}, r"^kappa: nan "),
        ({}, {"networks": 0}, r"^networks: 0 "),
        ({}, {"time_limit": -1.0}, r"^time_limit: -1\.0 "),
    ],
)
def test_refusals(changes, keywords, line):
    """One line says what is wrong, before anything is drawn."""
    with pytest.raises(ValueError, match=line) as caught:
        online_bound(SMALL.with_(changes), **keywords)
    assert "\n" not in str(caught.value)


def test_a_plan_of_ones_own():
    """A solution is judged like a method; another system's is refused."""
    bound = next(path_bounds(SMALL, [5], [0]))
    result = finecast.solve(bound.instance, "rolling")
    by_plan = controlled_gap(bound, result.solution)
    assert by_plan == controlled_gap(bound, "rolling")
    empty = np.zeros_like(result.solution.cache)
    size = np.bincount(kinds_of(bound.instance), weights=bound.instance.library.block_size)
    assert bound.penalties(empty) == pytest.approx((bound.penalty[:, :, 0] @ size).sum())
    assert bound.luck == pytest.approx(bound.penalties(empty | True))


@pytest.mark.slow
def test_many_users_are_counted_by_node():
    """14 users are too many states one by one: they are counted, and the mean stays zero."""
    many = SMALL.with_({"users.count": 14, "demand.activity": 0.8})
    programme = trained_programme(many, 0)
    assert programme.groups.states <= 4096
    assert len(np.unique(programme.groups.group)) == 2
    demand, rng = programme.demand, np.random.default_rng(0)
    requests = np.stack([sample(demand, rng) for _ in range(300)])
    penalty = penalties_of(programme, requests)[:, :, :, [0, 3]]
    score = penalty.mean(axis=0) / (penalty.std(axis=0) / np.sqrt(len(penalty)) + 1e-12)
    assert np.abs(score).max() < 5.0
    assert np.abs(penalty).max() > 0.0
    found = online_bound(many, networks=1, paths=1, methods=["greedy-online"])
    assert found.gaps["greedy-online"][0].gap >= 0.0


def test_pipelined():
    """Migrations beside broadcasts: the gap of a method is not below zero there either."""
    found = online_bound(
        SMALL.with_(schedule="pipelined"), networks=1, paths=2, methods=["rolling", "greedy"]
    )
    for gaps in found.gaps.values():
        assert min(gap.gap for gap in gaps) >= -1e-9


def test_interval_by_networks():
    """One network: Student's interval of its paths; several: of their means, equally weighted."""
    one = clustered_mean([3, 3, 3], [1.0, 2.0, 3.0])
    assert one.mean == 2.0
    assert one.interval == pytest.approx((2 - 4.302652730 / 3**0.5, 2 + 4.302652730 / 3**0.5))
    two = clustered_mean([3, 3, 3, 4], [1.0, 2.0, 3.0, 6.0])
    assert two.mean == 4.0
    assert two.interval == pytest.approx((4 - 12.706204736 * 2, 4 + 12.706204736 * 2))
    assert clustered_mean([3], [1.0]).interval is None


@pytest.mark.slow
def test_penalties_of_a_real_network():
    """2,000 request paths: penalties of fixed sets have mean zero, by their z-scores."""
    scenario = finecast.read_scenario("persist").with_(slots=6)
    programme = trained_programme(scenario, 11)
    demand = scenario.generate(11).demand
    rng = np.random.default_rng(0)
    total, square = 0.0, 0.0
    for _ in range(20):
        requests = np.stack([sample(demand, rng) for _ in range(100)])
        penalty = penalties_of(programme, requests)[:, :, :, [0, 3, -1]]
        total, square = total + penalty.sum(axis=0), square + (penalty**2).sum(axis=0)
    deviation = np.sqrt(square / 2000 - (total / 2000) ** 2)
    assert (deviation > 0).mean() > 0.9
    score = (total / 2000)[deviation > 0] / (deviation[deviation > 0] / np.sqrt(2000))
    assert np.abs(score).max() < 5.0
    assert np.sqrt((score**2).mean()) < 1.5
