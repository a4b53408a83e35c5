"""The graph network: renumbered nodes permute its scores, renumbered users change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_scenarios import at_start, instance, renumbered, scenario

from finecast.learners.networks.action_semantics import Scores
from finecast.learners.networks.graph import USER, CrowdFeatures, CrowdObserver, GraphNetwork
from finecast.learners.world.draws import surrogate_episodes, surrogate_of
from finecast.learners.world.environment import View
from finecast.learners.world.episodes import Episodes


@pytest.fixture(scope="module")
def network() -> GraphNetwork:
    torch.manual_seed(0)
    return GraphNetwork(width=16, embedding=8)


def view_of(draws: Episodes, order: list[int] | None = None) -> View:
    """Return the view of slot 0 with uneven caches, of nodes in another order."""
    cache = draws.start.clone()
    cache[:] = False
    held = torch.arange(cache.shape[2]) % 4
    for i, n in enumerate(order or range(cache.shape[1])):
        cache[0, i] = held == n
    return at_start(draws, cache)


def seen_of(view: View) -> CrowdFeatures:
    """Return the features of all nodes and users."""
    observer = CrowdObserver(lookahead=False)
    observer.begin(view)
    return observer(view)


def scores_of(network: GraphNetwork, seen: CrowdFeatures) -> Scores:
    with torch.no_grad():
        return network(seen)


def close(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_permuted_nodes_have_permuted_scores(network):
    """Of a whole system renumbered: rates, caches and users' amplitudes."""
    order = [2, 0, 1]
    one = surrogate_of(instance(), 0.5, dtype=torch.float64)
    other = surrogate_of(renumbered(instance(), order), 0.5, dtype=torch.float64)
    mine, theirs = (seen_of(view_of(one)), seen_of(view_of(other, order)))
    # Of blocks that save the same, the first counts as first: leave that column out.
    mine, theirs = without_ranks(mine), without_ranks(theirs)
    before, after = scores_of(network, mine), scores_of(network, theirs)
    close(before.keep[:, order], after.keep)
    close(before.nothing[:, order], after.nothing)
    # Node 0 of the renumbered system is node 2, whose neighbours 0 and 1 are now 1 and 2.
    close(before.source[:, 2], after.source[:, 0])
    close(before.company[:, 2], after.company[:, 0])
    assert float(before.keep.std(dim=1).max()) > 0.01  # nodes differ


def without_ranks(seen: CrowdFeatures) -> CrowdFeatures:
    own = seen.own.clone()
    own[..., -2:] = 0
    return replace(seen, own=own)


def test_permuted_users_change_nothing(network):
    """Channels, requests and demand of the users in another order: the same scores."""
    problem, order = instance(), [3, 1, 0, 2]
    turned = replace(
        problem,
        requests=problem.requests[:, order],
        channel_estimate=problem.channel_estimate[:, order],
        channel_error=problem.channel_error[:, order],
        channel_true=problem.channel_true[:, order],
        demand=replace(problem.demand, preference=problem.demand.preference[:, order]),
    )
    views = [view_of(surrogate_of(each, 0.5, dtype=torch.float64)) for each in (problem, turned)]
    seen, other = (without_ranks(seen_of(view)) for view in views)
    assert not torch.equal(seen.user, other.user)
    close(seen.user[:, order], other.user)
    close(scores_of(network, seen).keep, scores_of(network, other).keep)


def test_users_matter(network):
    """What a user asks for, and which node reaches it, changes the scores of the block."""
    seen = seen_of(view_of(surrogate_of(instance(), 0.5)))
    user, block = seen.asks[0].nonzero()[0].tolist()
    for name, index in (("asks", (0, user, block)), ("share", (0, user))):
        changed = getattr(seen, name).clone()
        changed[index] = 1.0 - changed[index]
        other = scores_of(network, replace(seen, **{name: changed}))
        change = (scores_of(network, seen).keep - other.keep)[0, :, block].abs()
        assert bool((change > 1e-6).all()), name


def test_what_users_ask_for_by_hand():
    """Blocks of the requested model, none without a request; shares of a user sum to 1."""
    problem = instance()
    draws = surrogate_of(problem, 0.5)
    for t in range(draws.slots):
        view = replace(view_of(draws), slot=draws.slot(t))
        seen = seen_of(view)
        np.testing.assert_array_equal(seen.asks[0].numpy(), problem.wanted[t])
        torch.testing.assert_close(seen.share.sum(dim=2), torch.ones(1, problem.users))
        assert seen.user.shape == (1, problem.users, len(USER))


def test_serves_other_numbers_of_nodes_blocks_and_users(network):
    """One network for 5 nodes, 20 blocks and 7 users too, and for padding."""
    larger = scenario(
        nodes={"count": 5},
        users={"count": 7},
        library={"synthetic": {"models": 8, "blocks": 20, "families": 2, "total_gb": 1.0}},
    )
    draws = surrogate_episodes(larger, [0, 1], exponent=0.5)
    found = scores_of(network, seen_of(at_start(draws, draws.start)))
    assert found.keep.shape == (2, 5, 20)
    assert bool(found.keep.isfinite().all())
