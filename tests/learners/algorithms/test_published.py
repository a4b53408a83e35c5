"""The published regime: no bit of the expected tables, learning from the delays that were paid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fixed_source import FixedSource
from repository import TINY_SLOTS

from finecast.learners.algorithms.joint_critic import JointCritic, first_order_costs, joint_cost
from finecast.learners.algorithms.paid import paid_loss, paid_per_byte, share_of_bytes
from finecast.learners.algorithms.set_values import critic_view
from finecast.learners.learner import Learner, play
from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, STATE, features
from finecast.learners.networks.raw_features import EXPECTED, raw_features
from finecast.learners.presets import preset_of
from finecast.learners.registry import learner_kind
from finecast.learners.weights import load_tensors, tensors_of
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import View, packed, unpacked
from finecast.learners.world.lookahead import Lookahead, lookahead_of
from finecast.learners.world.pool import Pool
from finecast.problem.scenario import read_scenario

SMALL = {"batch": 2, "width": 8, "embedding": 4}
LEARNERS: list[tuple[str, dict[str, Any]]] = [
    ("maasn-da", {}),
    ("maasn-da", {"action_semantics": False}),
    ("maasn-da", {"critic": "maddpg"}),
    ("maasn-da", {"credit": "block"}),
    ("qmix", {"updates": 3}),
    ("dcg", {"credit": "block", "updates": 3}),
    ("mappo", {}),
    ("ippo", {}),
    ("happo", {}),
    ("mat", {}),
    ("graph", {}),
]


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Four draws of the tiny scenario."""
    episodes = surrogate_episodes(read_scenario(TINY_SLOTS), range(4), horizon=1)
    return Pool(0, episodes, lookahead_of(episodes, steps=2)[0], 4)


def without_tables(pool: Pool) -> Pool:
    """Return the draws with NaN for all that is expected of coming slots, prices too."""
    unknown = {
        name: torch.full_like(getattr(pool.episodes, name), torch.nan)
        for name in ("need", "air", "worth", "audience")
    }
    values = Lookahead(*(torch.full_like(part, torch.nan) for part in vars(pool.values).values()))
    return replace(pool, episodes=replace(pool.episodes, **unknown), known=values)


def started(pool: Pool, name: str, seed: int = 0, **options: Any) -> Learner:
    """Return a learner of the preset at step 0."""
    kind = learner_kind(name)
    config = kind.config({**preset_of("published", kind).options, **SMALL, **options})
    source = FixedSource(pool)
    learner: Learner = kind.load().Learner(config, source, seed=seed, device=torch.device("cpu"))
    return learner


def test_every_feature_of_the_tables_is_named():
    """All names are those of features; what changes with the tables is among them."""
    assert EXPECTED <= {*OWN, *NEIGHBOUR, *CLOUD, *STATE}


def test_raw_features_do_not_change_with_the_tables(pool):
    """To the bit, in both stages, while the features themselves do; what is not named stays."""
    other = without_tables(pool)
    for keeping in (False, True):
        seen = []
        for draws in (pool, other):
            slot, cached = draws.episodes.slot(1), packed(draws.episodes.start)
            view = View(slot, cached, cached, cached * 0, in_turn=False, keeping=keeping)
            seen.append(features(view, None, draws.values.slot(1)))
        for name in ("own", "neighbour", "cloud", "state"):
            whole, unknown = (getattr(part, name) for part in seen)
            raw, again = (getattr(raw_features(part), name) for part in seen)
            assert torch.equal(raw, again)
            assert torch.equal(torch.where(unknown.isnan(), 0.0, raw), raw)
            names = {"own": OWN, "neighbour": NEIGHBOUR, "cloud": CLOUD, "state": STATE}[name]
            left = [i for i, what in enumerate(names) if what not in EXPECTED]
            assert torch.equal(raw[..., left], whole[..., left])


@pytest.mark.parametrize(("name", "options"), LEARNERS)
def test_neither_learning_nor_playing_uses_the_tables(pool, name, options):
    """With NaN for every table and price, all weights and all delays are the same to the bit."""
    found = []
    for draws in (pool, without_tables(pool)):
        learner = started(draws, name, **options)
        for _ in range(8 if name == "maasn-da" else 2):
            row = learner.step()
        total = play(draws.episodes, learner.policy()).total
        found.append((tensors_of(learner.parts()), row, total))
    (first, row, total), (second, other_row, other_total) = found
    assert row == other_row
    assert torch.equal(total, other_total)
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


@pytest.mark.parametrize(("name", "options"), LEARNERS)
def test_a_published_learner_goes_on_from_what_was_saved(pool, name, options):
    """One that takes over ends with the weights of one that was not cut off."""
    first, second = started(pool, name, **options), started(pool, name, 5, **options)
    for _ in range(3):
        first.step()
    saved = {key: value.clone() for key, value in tensors_of(first.parts()).items()}
    load_tensors(second.parts(), saved)
    second.load_extra(*first.extra())
    for _ in range(2):
        assert first.step() == second.step()
    for key, tensor in tensors_of(first.parts()).items():
        assert torch.equal(tensor, tensors_of(second.parts())[key]), key


@pytest.mark.parametrize("name", ["maasn-da", "mappo"])
def test_starts_at_random(pool, name):
    """Seeds give other first policies, unlike with tables, where all start at the same rule."""
    totals = [play(pool.episodes, started(pool, name, seed).policy()).total for seed in (0, 1)]
    assert not torch.equal(*totals)


def test_what_was_paid_by_hand():
    """Two blocks of 3 and 1 byte: shares 3/4 and 1/4; errors -1 and 3 cancel for the team."""
    share = torch.tensor([[0.75, 0.25]])
    cost, target = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, -1.0]])
    assert float(paid_loss(cost, target, share, "team")) == 0.0
    # Huber: 0.5 for an error of 1, 2.5 for one of 3.
    assert float(paid_loss(cost, target, share, "block")) == pytest.approx(0.75 * 0.5 + 0.25 * 2.5)


def test_delays_per_byte_add_up_to_that_of_the_slot(pool):
    """Shares times delays per byte are the slot delay over the library's bytes and the unit."""
    slot = pool.episodes.slot(1)
    delay = torch.rand(slot.size.shape, dtype=torch.float64) * slot.needed
    team = (share_of_bytes(slot) * paid_per_byte(slot, delay)).sum(dim=1)
    unit = slot.link[:, -1].mean(dim=1)
    expected = delay.sum(dim=1) / (slot.size.sum(dim=1) * unit)
    torch.testing.assert_close(team.double(), expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("critic", ["sets", "maddpg"])
def test_the_critic_learns_what_is_paid(pool, critic):
    """With discount 0, and one slot that was played, nearly all of its error goes."""
    learner = started(pool, "maasn-da", discount=0.0, critic_rate=0.01, play_every=1, critic=critic)
    learner.step(), learner.step()
    learner.config = replace(learner.config, play_every=10**6)  # it plays no more
    losses = [learner.step()["critic_loss"] for _ in range(80)]
    assert losses[-1] < losses[0] / 20


def test_first_order_costs_are_derivatives(pool):
    """Of the joint value by each relaxed action, against central differences; sets add up."""
    torch.manual_seed(0)
    critic = JointCritic(8)
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    slot = pool.episodes.slot(0)
    held = packed(pool.episodes.start)
    view = critic_view(slot, held, held)
    table = first_order_costs(critic, view, held)
    nodes, share = slot.nodes, share_of_bytes(slot)
    seen = raw_features(features(view, None))
    keep, step = unpacked(held, nodes).float(), 1e-2
    for n in range(nodes):
        for j in (0, 1):
            change = torch.zeros_like(keep)
            change[:, n, j] = step
            with torch.no_grad():
                up, down = (critic(seen, keep + s * change, share) for s in (1, -1))
            slope = (up - down) / (2 * step) / share[:, j]
            torch.testing.assert_close(table[:, j, 1 << n], slope, rtol=0.05, atol=0.02)
    torch.testing.assert_close(table[..., 3], table[..., 1] + table[..., 2])
    team = (share * joint_cost(critic, view, held)).sum(dim=1)
    torch.testing.assert_close(team, critic(seen, keep, share).detach(), rtol=1e-4, atol=1e-5)
