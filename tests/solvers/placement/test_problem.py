"""The judge of placements: delays by hand, every rule broken once."""

from __future__ import annotations

import numpy as np
import pytest
from placement_oracle import optimum, optimum_by_judge, random_problem

from finecast.solvers.placement.problem import (
    Placement,
    PlacementProblem,
    johnson_makespan,
    placement_delay,
    slot_times,
)

INF = np.inf


def two_nodes(schedule: str = "sequential") -> PlacementProblem:
    """Two nodes, two blocks of 10 and 20 bytes, two slots; block 1 is not needed in slot 1."""
    table = np.array([[INF, 2.0, 3.0, 1.0]])
    link = np.array([[INF, 0.5], [0.25, INF], [4.0, 5.0]])
    group = np.array([[0, 0], [0, -1]])
    return PlacementProblem([10, 20], [30, 10], group, (table, table), link, schedule)


def placed(
    changes: dict[tuple[int, int, int], int], cached: list[tuple[int, int, int]]
) -> Placement:
    cache = np.zeros((2, 2, 2), dtype=bool)
    source = np.full((2, 2, 2), -1)
    for index in cached:
        cache[index] = True
    for index, value in changes.items():
        source[index] = value
    return Placement(cache, source)


def test_delay_by_hand() -> None:
    """Block 0: cached at node 0, sent on to node 1 (10 x 0.5), both broadcast (10 x 1), then kept
    at both (10 x 1). Block 1: from the cloud to node 0 (20 x 4), broadcast alone (20 x 2)."""
    placement = placed({(0, 1, 0): 0, (0, 0, 1): 2}, cached=[(0, 0, 0), (1, 0, 0), (1, 1, 0)])
    migration, broadcast = slot_times(two_nodes(), placement)
    assert migration.tolist() == [[5.0, 80.0], [0.0, 0.0]]
    assert broadcast.tolist() == [[10.0, 40.0], [10.0, 0.0]]
    assert placement_delay(two_nodes(), placement) == 145.0
    # Johnson: block 0 (5, 10) first, then block 1 (80, 40): 5 + 80 + 40 in slot 0, 10 in slot 1.
    assert placement_delay(two_nodes("pipelined"), placement) == 135.0


@pytest.mark.parametrize(
    ("cached", "sources", "message"),
    [
        ([(0, 1, 1)], {(0, 0, 0): 2}, r"storage\[0, 1\]"),
        ([], {(0, 0, 0): 2, (1, 0, 0): 2, (1, 0, 1): 2, (0, 0, 1): 2}, "nobody needs"),
        ([(1, 0, 0)], {(0, 1, 0): 2, (0, 0, 1): 2}, r"cache\[0, 0, 0\].*kept"),
        ([], {(0, 0, 0): 1, (0, 0, 1): 2, (1, 0, 0): 2}, r"source\[0, 0, 0\].*not cached"),
        ([(0, 0, 0)], {(0, 0, 0): 0, (0, 0, 1): 2, (1, 0, 0): 2}, "from itself"),
        ([], {(0, 0, 0): 2, (0, 0, 1): 2}, r"broadcast\[1, 0\]"),
    ],
)  # fmt: skip
def test_every_rule_is_checked(
    cached: list[tuple[int, int, int]], sources: dict[tuple[int, int, int], int], message: str
) -> None:
    """Storage, need, keep, source, self and an unserved block are each refused by name."""
    with pytest.raises(ValueError, match=message):
        placement_delay(two_nodes(), placed(sources, cached))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_size": [0, 20]}, r"block_size\[0\]"),
        ({"storage": [30, -1]}, r"storage\[1\]"),
        ({"group": np.array([[0, 1], [0, -1]])}, r"group\[0, 1\]"),
        ({"link": np.full((3, 2), INF)}, r"link\[cloud\]"),
        ({"schedule": "later"}, "schedule: 'later'"),
        ({"broadcast": (np.array([[INF, 2.0, 3.0, 2.5]]),) * 2}, r"broadcast\[0\]\[0, 3\]"),
        ({"broadcast": (np.array([[1.0, 1.0, 1.0, 1.0]]),) * 2}, "nobody sends"),
        ({"broadcast": (np.array([[INF, INF, INF, INF]]),) * 2}, r"broadcast\[0\]\[:, -1\]"),
    ],
)
def test_constructor_names_the_fault(change: dict[str, object], message: str) -> None:
    """Each array out of range is refused with its name and index."""
    problem = two_nodes()
    good = {name: getattr(problem, name) for name in problem.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        PlacementProblem(**(good | change))


def test_johnson_is_the_best_order() -> None:
    """Against all orders of four jobs, simulated on the two machines."""
    import itertools

    rng = np.random.default_rng(3)
    for _ in range(20):
        a, b = rng.integers(0, 9, (2, 4)).astype(float)
        ends = []
        for order in itertools.permutations(range(4)):
            moved = sent = 0.0
            for i in order:
                moved += a[i]
                sent = max(sent, moved) + b[i]
            ends.append(sent)
        assert johnson_makespan(a, b) == pytest.approx(min(ends))


@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
def test_oracle_agrees_with_the_judge(schedule: str) -> None:
    """The enumeration by blocks finds what trying all arrays on the judge finds."""
    rng = np.random.default_rng(1)
    for nodes, blocks, slots in [(1, 2, 1), (2, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1), (1, 3, 1)]:
        problem = random_problem(rng, nodes, blocks, slots, schedule)
        assert optimum(problem) == pytest.approx(optimum_by_judge(problem), rel=1e-12, abs=1e-12)
