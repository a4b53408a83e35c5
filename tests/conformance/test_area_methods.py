"""Online methods and shipped policies keep the rules on an instance of two areas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.two_areas import two_areas

from finecast.problem.instance import Instance
from finecast.solvers.areas import on_air
from finecast.solvers.registry import methods
from finecast.solvers.solve import solve
from finecast.testing import checks

ONLINE = sorted(
    name
    for name, method in methods().items()
    if method.areas and method.setting == "online" and not method.needs_training
)
PLAYERS = [(name, "") for name in ONLINE] + [("policy", "dcg"), ("policy", "local")]


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """Beams of a few steps: the rules hold for any."""
    monkeypatch.setattr(on_air, "STEPS", 10)
    monkeypatch.setattr(on_air, "POLISH_STEPS", 10)


def options_of(checkpoint: str) -> dict[str, str]:
    return {"checkpoint": checkpoint} if checkpoint else {}


@pytest.mark.parametrize(("name", "checkpoint"), PLAYERS)
def test_same_answer_twice_and_above_the_bound(name, checkpoint):
    """Judged feasible, bit for bit the same, never below the bound of the instance."""
    instance, options = two_areas(1, slots=2), options_of(checkpoint)
    checks.check_seed(name, instance, **options)
    checks.check_bound(name, instance, **options)


@pytest.mark.parametrize(
    ("name", "checkpoint"), [p for p in PLAYERS if p[0] in ("lru", "rolling", "policy")]
)
def test_nothing_of_the_coming_slots(name, checkpoint):
    """Caches, sources and messages up to a slot stay whatever comes after it."""
    checks.check_future(name, two_areas(1, slots=2), **options_of(checkpoint))


@pytest.mark.parametrize("name", ["lru", "rolling"])
def test_true_channels_change_nothing(name):
    """Only the judge sees them."""
    checks.check_true_channel(name, two_areas(1, slots=2))


@pytest.mark.parametrize("name", ["lru", "rolling"])
def test_other_numbers_of_areas(name):
    """Whichever area is called 0, every node caches the same, and the delay is the same."""
    instance = two_areas(2, slots=2)
    swapped = replace(instance, areas=1 - instance.areas)
    found, other = (solve(which, name) for which in (instance, swapped))
    assert found.solution is not None
    assert other.solution is not None
    np.testing.assert_array_equal(found.solution.cache, other.solution.cache)
    assert other.delay == pytest.approx(found.delay, rel=1e-3)  # sums in another order


def _moved(instance: Instance) -> Instance:
    """All users ask within area 0 in slot 1, nobody asks in slot 2."""
    channel, requests = instance.channel_estimate.copy(), instance.requests.copy()
    channel[1, :, 2:] *= 1e-3
    requests[2] = -1
    return replace(
        instance,
        requests=requests,
        channel_estimate=channel,
        channel_true=channel,
        channel_error=0.05 * np.linalg.norm(channel, axis=3),
    )


@pytest.mark.parametrize(("name", "checkpoint"), [("lru", ""), ("rolling", ""), ("policy", "dcg")])
def test_an_area_without_users_keeps_its_caches(name, checkpoint):
    """Users wander off, and a slot may have no request at all."""
    instance = _moved(two_areas(3, slots=4))
    result = solve(instance, name, **options_of(checkpoint))
    assert result.evaluation is not None
    assert result.evaluation.feasible
    assert result.solution is not None
    cache = result.solution.cache
    np.testing.assert_array_equal(cache[1, 2:], cache[2, 2:])
    np.testing.assert_array_equal(cache[2], cache[3])


@pytest.mark.parametrize("restrict", ["coarse", "no-migration", "one-message"])
def test_restrictions_of_areas(restrict):
    """Those that areas know hold for online methods too."""
    result = solve(two_areas(1, slots=2), "lru", restrict=restrict)
    assert result.evaluation is not None
    assert result.evaluation.feasible
    assert result.solution is not None
    assert result.lower_bound <= result.delay
    if restrict == "no-migration":
        source = result.solution.source
        assert set(np.unique(source)) <= {-1, 4}  # the cloud alone


@pytest.mark.parametrize("checkpoint", ["", "dcg"])
@pytest.mark.parametrize(
    ("asked", "why"),
    [({"delivery": "spatial"}, "'spatial'"), ({"schedule": "pipelined"}, "'pipelined'"),
     ({"restrict": "no-comp"}, "'no-comp'"), ({"restrict": "unicast"}, "'unicast'"),
     ({"restrict": "non-robust"}, "'non-robust'"), ({"beamforming": "sdr"}, "'sdr'")],
)  # fmt: skip
def test_what_areas_refuse(asked, why, checkpoint):
    """In one line that names it."""
    method = "policy" if checkpoint else "lru"
    with pytest.raises(ValueError, match=why):
        solve(two_areas(1), method, **options_of(checkpoint), **asked)
