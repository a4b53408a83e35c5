"""Demand: popularity and forecast against enumeration of the whole process, and the generator."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finecast.problem.demand import Demand, draw_demand, forecast, popularity, sample


def some_demand(seed, slots, users, models, persistence, activity=None):
    """Return a demand model with arbitrary preferences and, by default, arbitrary activities."""
    rng = np.random.default_rng(seed)
    preference = rng.dirichlet(np.ones(models), size=(slots, users))
    if activity is None:
        activity = rng.uniform(size=users)
    return Demand(preference, persistence, np.broadcast_to(activity, (users,)))


def path_probabilities(demand, user):
    """Return {path: probability} of every sequence of requests of one user.

    Written from the words of the process, each path weighed step by step; shares nothing with the
    recursion over distributions that it is to check.
    """
    activity, persistence = demand.activity[user], demand.persistence
    paths = {}
    for path in product(range(-1, demand.models), repeat=demand.slots):
        probability, last = 1.0, None
        for t, model in enumerate(path):
            if model == -1:
                probability *= 1 - activity
                continue
            if last is None:
                chance = demand.preference[t, user, model]
            else:
                chance = (1 - persistence) * demand.preference[t, user, model]
                chance += persistence if model == last else 0.0
            probability *= activity * chance
            last = model
        paths[path] = probability
    return paths


def conditional(demand, user, past):
    """Return (T - t, M) by Bayes: the weight of the paths that begin like `past`."""
    weight, total = np.zeros((demand.slots, demand.models)), 0.0
    for path, probability in path_probabilities(demand, user).items():
        if path[: len(past)] == tuple(past):
            total += probability
            for t, model in enumerate(path):
                if model >= 0:
                    weight[t, model] += probability
    return weight[len(past) :] / total


probabilities = st.floats(0, 1)
demands = st.builds(
    some_demand,
    seed=st.integers(0, 2**32 - 1),
    slots=st.integers(1, 4),
    users=st.integers(1, 3),
    models=st.integers(1, 4),
    persistence=probabilities,
    activity=st.none() | probabilities,
)


def test_popularity_by_hand():
    """Two slots, worked out by hand, so that a reader can follow the recursion.

    Active with 1/2; repeats with 1/2; preference (1, 0) in slot 0, (0, 1) in slot 1. Slot 0: model
    0 with 1/2. Slot 1: had a request and repeats, 1/2 * 1/2 * 1/2 = 1/8; else model 1, 3/8.
    """
    demand = Demand(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), 0.5, np.array([0.5]))
    assert popularity(demand).tolist() == [[[0.5, 0.0]], [[0.125, 0.375]]]
    assert forecast(demand, [[-1]]).tolist() == [[[0.0, 0.5]]]
    assert forecast(demand, [[0]]).tolist() == [[[0.25, 0.25]]]


@pytest.mark.parametrize("models", [1, 2, 3])
@pytest.mark.parametrize("persistence", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("activity", [0.4, 1.0])
def test_popularity_and_forecast_equal_enumeration(models, persistence, activity):
    """Every path of three slots and every past: both functions are exact, not approximate."""
    demand = some_demand(models, 3, 1, models, persistence, activity)
    paths = path_probabilities(demand, user=0)
    assert sum(paths.values()) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(
        popularity(demand)[:, 0], conditional(demand, 0, ()), rtol=0, atol=1e-12
    )
    for t in range(4):
        for past in product(range(-1, models), repeat=t):
            if any(paths[path] > 0 for path in paths if path[:t] == past):
                column = np.array(past, dtype=np.int64).reshape(t, 1)
                np.testing.assert_allclose(
                    forecast(demand, column)[:, 0],
                    conditional(demand, 0, past),
                    rtol=0,
                    atol=1e-12,
                )


def test_users_are_independent_of_each_other():
    """Several users at once are each as alone: the vectorised recursion mixes no rows."""
    demand = some_demand(5, 4, 3, 3, 0.6)
    past = np.array([[0, -1, 2], [-1, -1, 1]])
    together = forecast(demand, past)
    for k in range(3):
        alone = Demand(demand.preference[:, [k]], 0.6, demand.activity[[k]])
        np.testing.assert_array_equal(together[:, [k]], forecast(alone, past[:, [k]]))


@given(demands)
def test_rows_sum_to_activity(demand):
    """A user requests something with its activity in every slot, whatever the past."""
    past = sample(demand, np.random.default_rng(0))
    expected = np.broadcast_to(demand.activity, (demand.slots, demand.users))
    for t in range(demand.slots + 1):
        table = forecast(demand, past[:t])
        assert table.min(initial=0) >= 0
        np.testing.assert_allclose(table.sum(axis=2), expected[t:], rtol=0, atol=1e-12)


@given(demands)
def test_forecast_without_a_past_is_popularity(demand):
    """Before slot 0 nothing is known but the model; after slot T nothing is left to forecast."""
    requests = sample(demand, np.random.default_rng(0))
    np.testing.assert_array_equal(forecast(demand, requests[:0]), popularity(demand))
    assert forecast(demand, requests).shape == (0, demand.users, demand.models)


@given(demands)
def test_law_of_total_probability(demand):
    """Forecasts averaged over the outcomes of slot 0 give back the popularity of the rest."""
    chance = popularity(demand)[0]
    average = (1 - demand.activity)[:, None] * forecast(demand, np.full((1, demand.users), -1))
    for model in range(demand.models):
        given_model = forecast(demand, np.full((1, demand.users), model))
        average = average + chance[:, model, None] * given_model
    np.testing.assert_allclose(average, popularity(demand)[1:], rtol=0, atol=1e-12)


@given(demands, st.randoms(use_true_random=False))
def test_permuting_models_permutes_the_forecast(demand, random):
    """Model numbers are only names."""
    order = random.sample(range(demand.models), demand.models)
    permuted = Demand(demand.preference[:, :, order], demand.persistence, demand.activity)
    past = sample(demand, np.random.default_rng(0))[: demand.slots // 2]
    new_number = np.append(np.argsort(order), -1)  # index -1 keeps -1
    np.testing.assert_allclose(
        forecast(permuted, new_number[past]),
        forecast(demand, past)[:, :, order],
        rtol=0,
        atol=1e-12,
    )


def test_without_persistence_the_past_tells_nothing():
    """Persistence 0: every slot is a fresh draw, p = activity * preference."""
    demand = some_demand(1, 3, 2, 4, 0.0)
    expected = demand.activity[:, None] * demand.preference
    np.testing.assert_allclose(popularity(demand), expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(forecast(demand, [[0, 1]]), expected[1:], rtol=0, atol=1e-15)


def test_full_persistence_keeps_the_first_request():
    """Persistence 1: the first request is known forever, through slots of silence too."""
    demand = some_demand(2, 5, 200, 4, 1.0, 0.7)
    requests = sample(demand, np.random.default_rng(0))
    assert (requests == -1).any()
    for of_user in requests.T:
        assert len(set(of_user[of_user >= 0])) <= 1
    table = forecast(demand, np.where(np.arange(200) % 2, 3, 1)[None].repeat(2, axis=0))
    np.testing.assert_array_equal(table[:, 1::2], np.broadcast_to([0, 0, 0, 0.7], (3, 100, 4)))
    np.testing.assert_array_equal(table[:, ::2], np.broadcast_to([0, 0.7, 0, 0], (3, 100, 4)))


def test_nobody_active():
    """Activity 0: no requests, and popularity says so."""
    demand = some_demand(3, 4, 2, 3, 0.5, 0.0)
    assert (sample(demand, np.random.default_rng(0)) == -1).all()
    assert not popularity(demand).any()


def test_sample_follows_popularity_and_forecast():
    """Frequencies over 20,000 alike users lie within five standard errors of both tables."""
    users, one = 20_000, some_demand(4, 3, 1, 3, 0.6, 0.8)
    demand = Demand(one.preference.repeat(users, axis=1), 0.6, np.full(users, 0.8))
    requests = sample(demand, np.random.default_rng(0))
    frequency = (requests[:, :, None] == np.arange(3)).mean(axis=1)
    error = 5 * np.sqrt(0.25 / users)
    np.testing.assert_allclose(frequency, popularity(one)[:, 0], rtol=0, atol=error)

    for past in product(range(-1, 3), repeat=2):
        like = (np.array(past) == requests[:2].T).all(axis=1)
        frequency = (requests[2, like, None] == np.arange(3)).mean(axis=0)
        expected = forecast(one, np.array(past)[:, None])[0, 0]
        error = 5 * np.sqrt(0.25 / like.sum())
        np.testing.assert_allclose(frequency, expected, rtol=0, atol=error)


def test_sample_never_draws_the_impossible_and_repeats_for_a_seed():
    """Models of probability 0 are not drawn, at either end of the range; a seed fixes the draw."""
    preference = np.broadcast_to([0, 0.1, 0.2, 0, 0.7, 0], (50, 100, 6))
    demand = Demand(preference, 0.3, np.full(100, 0.9))
    requests = sample(demand, np.random.default_rng(7))
    assert requests.dtype == np.int64
    assert set(np.unique(requests)) == {-1, 1, 2, 4}
    np.testing.assert_array_equal(requests, sample(demand, np.random.default_rng(7)))


@pytest.mark.parametrize(("uniform", "model"), [(0.0, 1), (np.nextafter(1, 0), 10)])
def test_sample_at_the_ends_of_the_unit_interval(uniform, model):
    """Ten times 0.1 adds up to a little less than 1: the largest uniform number draws the tenth.

    A sum short of 1 would draw the model of probability 0 behind it, or one that does not exist.
    """

    class Constant:
        def random(self, shape):
            return np.full(shape, uniform)

    row = np.array([0.0] + [0.1] * 10 + [0.0])
    assert row.cumsum()[-1] < 1
    assert sample(Demand(row[None, None], 0.0, np.ones(1)), Constant()).tolist() == [[model]]


def rank_correlation(demand, first, second):
    """Return Spearman's rank correlation of two (slot, user) rows of preference."""
    ranks = [demand.preference[row].argsort().argsort() for row in (first, second)]
    return np.corrcoef(*ranks)[0, 1]


def draw(seed=0, **parameters):
    """Return a drawn demand of 4 slots, 3 users, 5 models unless told otherwise."""
    settings = {"slots": 4, "users": 3, "models": 5, "zipf": 0.8} | parameters
    return draw_demand(np.random.default_rng(seed), **settings)


def test_zipf_weights():
    """Exponent 1 over three models: shares 6, 3 and 2 elevenths, in some order; 0: all alike."""
    row = np.sort(draw(models=3, zipf=1).preference[0, 0])
    np.testing.assert_allclose(row, np.array([2, 3, 6]) / 11, rtol=1e-14)
    assert (draw(zipf=0).preference == 0.2).all()


def test_alike_users_and_constant_popularity_by_default():
    """Without tastes and drift there is one ranking, for all users in all slots."""
    demand = draw(slots=6)
    assert (demand.preference == demand.preference[0, 0]).all()
    assert demand.persistence == 0
    assert (demand.activity == 1).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_tastes_and_drift_set_the_rank_correlation(share):
    """20,000 models: Spearman's correlation is (6 / pi) arcsin(c / 2), c as the docstring says."""

    def spearman(c):
        return pytest.approx(6 / np.pi * np.arcsin(c / 2), abs=0.03)

    between_users = draw(models=20_000, tastes=share)
    assert rank_correlation(between_users, (0, 0), (0, 1)) == spearman(1 - share)
    over_slots = draw(models=20_000, drift=share)
    assert rank_correlation(over_slots, (0, 0), (1, 0)) == spearman(1 - share)
    assert rank_correlation(over_slots, (0, 0), (3, 0)) == spearman((1 - share) ** 3)
    assert rank_correlation(over_slots, (3, 0), (3, 1)) == pytest.approx(1)


def test_users_of_an_area_share_their_taste():
    """Areas, such as strongest nodes, and not users carry the tastes."""
    demand = draw(users=4, models=50, tastes=0.5, drift=0.2, area=[7, 2, 2, 7])
    np.testing.assert_array_equal(demand.preference[:, 0], demand.preference[:, 3])
    np.testing.assert_array_equal(demand.preference[:, 1], demand.preference[:, 2])
    assert (demand.preference[:, 0] != demand.preference[:, 1]).any()


def test_popularity_cycles():
    """With a period the rankings repeat exactly, and change within it."""
    preference = draw(slots=10, models=50, drift=0.3, period=4).preference
    np.testing.assert_array_equal(preference[4:8], preference[:4])
    np.testing.assert_array_equal(preference[8:], preference[:2])
    assert (preference[:3] != preference[1:4]).any(axis=(1, 2)).all()


def test_a_longer_horizon_extends_a_shorter_one():
    """The same seed with more slots begins alike, so that horizons can be compared."""
    short, long = (draw(slots=t, tastes=0.4, drift=0.3).preference for t in (3, 9))
    np.testing.assert_array_equal(short, long[:3])


@given(
    seed=st.integers(0, 1000),
    slots=st.integers(1, 4),
    users=st.integers(1, 4),
    models=st.integers(1, 6),
    zipf=st.floats(0, 1e308),
    tastes=probabilities,
    drift=probabilities,
    persistence=probabilities,
    activity=probabilities,
)
def test_every_drawn_demand_is_valid(seed, **parameters):
    """Whatever the parameters, `Demand` accepts the result and requests stay in range."""
    demand = draw(seed, **parameters)
    requests = sample(demand, np.random.default_rng(seed))
    assert requests.shape == (parameters["slots"], parameters["users"])
    assert requests.min() >= -1
    assert requests.max() < parameters["models"]


HALVES = np.full((2, 3, 2), 0.5)


def changed(value, *index):
    """Return `HALVES` with one element changed."""
    array = HALVES.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("preference", "persistence", "activity", "message"),
    [
        (HALVES[0], 0.5, np.ones(3), r"preference: shape is \(3, 2\), expected \(slots, users"),
        (HALVES[:0], 0.5, np.ones(3), r"preference: shape is \(0, 3, 2\), expected \(slots"),
        (changed(0.6, 1, 2, 0), 0.5, np.ones(3), r"preference\[1, 2\]: sums to 1.1, must be 1"),
        (changed(-0.1, 1, 2, 0), 0.5, np.ones(3), r"preference\[1, 2, 0\]: -0.1 .* >= 0"),
        (changed(np.nan, 0, 0, 1), 0.5, np.ones(3), r"preference\[0, 0, 1\]: nan .* finite"),
        (HALVES, 1.5, np.ones(3), r"persistence: 1.5 .* <= 1"),
        (HALVES, 0.5, np.ones(2), r"activity: shape is \(2,\), expected \(3,\)"),
        (HALVES, 0.5, np.array([0, 2, 1]), r"activity\[1\]: 2.0 .* <= 1"),
    ],
)
def test_bad_demand_is_refused(preference, persistence, activity, message):
    """Every bad argument gives one line: name, index, value, what is allowed."""
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        Demand(preference, persistence, activity)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("past", "message"),
    [
        ([[0, 0]], r"past_requests: shape is \(1, 2\), expected \(t, 3\) with t from 0 to 2"),
        (np.zeros((3, 3), int), r"past_requests: shape is \(3, 3\), .* t from 0 to 2"),
        ([[0, 2, 0]], r"past_requests\[0, 1\]: 2 .* <= 1"),
        ([[0, 0, -2]], r"past_requests\[0, 2\]: -2 .* >= -1"),
        ([[0.0, 1.0, 1.0]], "past_requests: elements are float64, expected int"),
    ],
)
def test_a_bad_past_is_refused(past, message):
    """A past that is too long, of other users or with unknown models is not forecast from."""
    with pytest.raises(ValueError, match=f"^{message}"):
        forecast(Demand(HALVES, 0.5, np.ones(3)), past)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"slots": 0}, "slots: 0 .* >= 1"),
        ({"models": 0}, "models: 0 .* >= 1"),
        ({"period": -1}, "period: -1 .* >= 0"),
        ({"zipf": -0.1}, "zipf: -0.1 .* >= 0"),
        ({"zipf": np.inf}, "zipf: inf .* finite"),
        ({"tastes": 1.1}, "tastes: 1.1 .* <= 1"),
        ({"drift": -0.2}, "drift: -0.2 .* >= 0"),
        ({"period": 3}, "drift: 0.0 .* > 0 when period is 3"),
        ({"area": [0, 1]}, r"area: shape is \(2,\), expected \(3,\)"),
        ({"area": [0, -1, 0]}, r"area\[1\]: -1 .* >= 0"),
        ({"activity": np.nan}, r"activity\[0\]: nan .* finite"),
        ({"activity": [0.5, 0.5]}, r"activity: shape is \(2,\), expected \(3,\)"),
    ],
)
def test_bad_parameters_of_the_generator_are_refused(parameters, message):
    """One line with the parameter, its value and its range."""
    with pytest.raises(ValueError, match=f"^{message}"):
        draw(**parameters)


def test_a_demand_does_not_change():
    """The arrays are copies and read-only: what was known before slot 0 stays."""
    preference = HALVES.copy()
    demand = Demand(preference, 0.5, np.ones(3))
    preference[:] = 0
    assert (demand.preference == 0.5).all()
    with pytest.raises(ValueError, match="read-only"):
        demand.activity[0] = 0
