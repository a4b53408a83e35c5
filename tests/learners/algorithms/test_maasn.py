"""MAASN-DA: backups, costs of actions and losses against independent computations."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from fixed_source import FixedSource
from repository import TINY_SLOTS

from finecast.learners.algorithms import qmix
from finecast.learners.algorithms.actors import Actors
from finecast.learners.algorithms.lessons import (
    NO_MARGIN,
    keep_loss,
    keep_values,
    lessons_of,
    pull_costs,
    pull_loss,
)
from finecast.learners.algorithms.maasn import Learner
from finecast.learners.algorithms.maasn_critic import block_loss as maasn_loss
from finecast.learners.algorithms.maasn_options import Config
from finecast.learners.algorithms.noise import gumbel_noise, logistic
from finecast.learners.algorithms.set_values import (
    Rows,
    backup,
    base_costs,
    rents,
    unit_of,
    value_after,
)
from finecast.learners.networks.action_semantics import ActionSemanticsNetwork
from finecast.learners.networks.observer import Observer
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import deliver, packed, step
from finecast.learners.world.lookahead import lookahead_of
from finecast.learners.world.pool import Pool
from finecast.problem.scenario import read_scenario

TINY = TINY_SLOTS


def qmix_loss(cost: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same loss as the learner `qmix` has it: of the error."""
    return qmix.block_loss(cost - target, weight)


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Six draws of the tiny scenario."""
    episodes = surrogate_episodes(read_scenario(TINY), range(6))
    return Pool(0, episodes, lookahead_of(episodes, steps=4)[0], 6)


def some_costs(pool: Pool, seed: int = 0) -> torch.Tensor:
    """Random costs (E, J, S), falling as the set grows."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*pool.episodes.size.shape, 1 << pool.episodes.nodes)
    cost = torch.rand(shape, generator=generator)
    return cost.flip(2).cumsum(2).flip(2)


def test_value_after_is_the_least_over_subsets():
    """U(Q) by enumeration of all K within Q."""
    cost = torch.rand(7, 16, generator=torch.Generator().manual_seed(3))
    value = value_after(cost)
    for held in range(16):
        within = [k for k in range(16) if k & ~held == 0]
        torch.testing.assert_close(value[:, held], cost[:, within].amin(dim=1))


def test_backup_is_the_best_set_of_receivers(pool):
    """y(K) by enumeration of all receiving sets: migration by the slowest, broadcast, then U."""
    episodes = pool.episodes
    slot, after = episodes.slot(1), some_costs(pool)
    rows = Rows.where(slot.real)
    found = backup(slot, rows.pick(after), rows)
    unit, nodes = unit_of(slot), slot.nodes
    for i, (e, j) in enumerate(zip(rows.draw.tolist(), rows.block.tolist(), strict=True)):
        for cached in range(1 << nodes):
            if slot.group[e, j] < 0:
                assert found[i, cached] == after[e, j, cached]
                continue
            best = math.inf
            for held in (q for q in range(1 << nodes) if cached & ~q == 0):
                taken = [
                    slot.link[e, [m for m in range(nodes) if cached >> m & 1] + [nodes], n].min()
                    for n in range(nodes)
                    if (held & ~cached) >> n & 1
                ]
                air = slot.broadcast[e, slot.group[e, j], held]
                seconds = (max(taken, default=torch.tensor(0.0)) + air) / unit[e]
                best = min(best, float(seconds + after[e, j, held]))
            assert found[i, cached] == pytest.approx(best, rel=1e-5)


def played(pool: Pool, t: int = 1, *, in_turn: bool = True):
    """Explore a slot; return it, the actors' turns, and what came of it."""
    torch.manual_seed(5)
    actors = Actors(
        ActionSemanticsNetwork(),
        Observer(False),
        temperature=0.1,
        in_turn=in_turn,
        rounds=2 if in_turn else 1,
        generator=torch.Generator().manual_seed(6),
    )
    slot, cache = pool.episodes.slot(t), pool.episodes.start
    with torch.no_grad():
        delivery, keep = step(slot, cache, actors, in_turn=in_turn, rounds=actors.rounds)
    return slot, packed(cache), actors.turns, delivery, packed(keep)


@pytest.mark.parametrize("in_turn", [True, False])
def test_pull_costs_are_what_the_environment_charges(pool, in_turn):
    """For every source a node could have named, the environment's own delay, plus U."""
    slot, cached, turns, delivery, _ = played(pool, in_turn=in_turn)
    after = some_costs(pool)
    tried = 0
    for turn in (turn for turn in turns if not turn.keeping):
        costs = pull_costs(turn, slot, cached, delivery, after)
        for i, action in itertools.product(range(len(costs)), range(slot.nodes + 2)):
            e, j = int(turn.rows.draw[i]), int(turn.rows.block[i])
            allowed = action == slot.nodes + 1 or turn.seen.may_pull[i, action]
            source = delivery.source.clone()
            source[e, turn.node, j] = -1 if action == slot.nodes + 1 else action
            sender = int(cached[e, j]) | sum(
                1 << n for n in range(slot.nodes) if source[e, n, j] >= 0
            )
            if not allowed or math.isinf(slot.broadcast[e, slot.group[e, j], sender]):
                continue
            there = deliver(slot, cached, source)
            delay = there.delay[e, j] / slot.size[e, j] / unit_of(slot)[e]
            expected = float(delay + after[e, j, there.sender[e, j]])
            assert float(costs[i, action]) == pytest.approx(expected, rel=1e-5)
            tried += 1
    assert tried > 50


def test_keep_values_by_hand(pool):
    """What a copy saves given the others, and what the first byte that does not fit displaces."""
    slot, _, _, delivery, kept = played(pool)
    cost = some_costs(pool, seed=1)
    for n in range(slot.nodes):
        displaced, saved = keep_values(n, slot, delivery.sender, cost, kept)
        for e in range(slot.draws):
            free, last, full = float(slot.storage[e, n]), math.inf, False
            here = [j for j in range(slot.blocks) if delivery.sender[e, j] >> n & 1]
            for j in sorted(here, key=lambda j: -float(saved[e, j])):
                others = int(kept[e, j]) & ~(1 << n)
                by_hand = cost[e, j, others] - cost[e, j, others | 1 << n]
                assert float(saved[e, j]) == pytest.approx(max(float(by_hand), 1e-6))
                if slot.size[e, j] <= free:
                    free -= float(slot.size[e, j])
                    last = float(saved[e, j])
                else:
                    full = True
            expected = last if full and math.isfinite(last) else NO_MARGIN
            assert float(displaced[e]) == pytest.approx(expected)


@pytest.mark.parametrize("tau", [0.25, 1.0, 3.0])
def test_free_logits_end_at_the_savings(tau):
    """The optimum is logit = saved at any tau, few draws of the noise suffice, and none is left."""
    saved = torch.tensor([3.0, -1.0, 0.5, 1.5])
    logit = torch.zeros(4, requires_grad=True)
    adam = torch.optim.Adam([logit], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1500):
        loss = keep_loss(
            logit, logistic((4, 8), generator), torch.ones(4), saved, tau=tau, clip=10.0
        )
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
    torch.testing.assert_close(logit.detach(), saved, rtol=0.0, atol=0.05)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_free_pulls_end_at_the_softmax_of_the_costs(tau):
    """Chances ~ exp(-cost) among what is allowed, at any tau."""
    cost = torch.tensor([[0.5, 0.0, 2.0, 1.0]])
    closed = torch.tensor([[0.0, 0.0, 0.0, -math.inf]])
    logits = torch.zeros(1, 4, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1500):
        noise = gumbel_noise((1, 8, 4), generator)
        loss = pull_loss(logits + closed, noise, cost, tau=tau, clip=10.0)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
    found = torch.softmax(logits.detach() + closed, dim=1)
    torch.testing.assert_close(found, torch.softmax(closed - cost, dim=1), rtol=0.0, atol=0.02)


def test_the_gradient_tends_to_that_of_the_expected_cost():
    """With small tau: d/dx [sigmoid(x) cost - entropy] = sigmoid'(x) (cost + x), by hand."""
    over = torch.tensor([-2.0, 0.3, 1.0, 2.5], requires_grad=True)
    saved = torch.tensor([1.0, 0.5, -0.7, 2.0])
    noise = logistic((4, 200_000), torch.Generator().manual_seed(1))
    loss = keep_loss(over, noise, torch.zeros(4), saved, tau=0.05, clip=10.0)
    (found,) = torch.autograd.grad(loss.sum(), over)
    chance = torch.sigmoid(over.detach())
    torch.testing.assert_close(
        found, chance * (1 - chance) * (over.detach() - saved), rtol=0.05, atol=0.01
    )


def test_nothing_to_learn_where_all_fits():
    """Without a margin the loss of keeping is 0, and so is its gradient."""
    logit = torch.randn(5, requires_grad=True)
    displaced = torch.full((5,), NO_MARGIN / 0.05)
    loss = keep_loss(logit, torch.randn(5, 3), displaced, torch.rand(5), tau=1.0, clip=10.0)
    loss.sum().backward()
    assert not loss.any()
    assert not logit.grad.any()


def test_pull_loss_leaves_what_is_not_allowed_alone():
    """Forbidden sources get no gradient; the cheap allowed one is pushed up, the dear one down."""
    logits = torch.zeros(1, 4, requires_grad=True)
    closed = torch.tensor([[0.0, -math.inf, 0.0, 0.0]])
    cost = torch.tensor([[5.0, math.inf, 0.0, 5.0]])
    total = torch.zeros(1, 4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        noise = gumbel_noise((1, 2, 4), generator)
        loss = pull_loss(logits + closed, noise, cost, tau=1.0, clip=10.0)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        total += gradient
    assert torch.isfinite(total).all()
    assert total[0, 1] == 0
    assert total[0, 2] < 0 < total[0, 0]


@pytest.mark.parametrize("in_turn", [True, False])
def test_a_copy_is_judged_by_what_its_node_saw(pool, in_turn):
    """In turn by the others at the time, all at once by what they then kept; by hand."""
    slot, cached, turns, delivery, kept = played(pool, in_turn=in_turn)
    cost = some_costs(pool, seed=2)
    final = None if in_turn else kept
    lessons = lessons_of(turns, slot, cached, delivery, cost, cost, kept=final)
    row = 0
    for turn in turns:
        for e, j in zip(turn.rows.draw.tolist(), turn.rows.block.tolist(), strict=True):
            if turn.keeping:
                seen = turn.others if in_turn else kept
                others = int(seen[e, j]) & ~(1 << turn.node)
                saved = float(cost[e, j, others] - cost[e, j, others | 1 << turn.node])
                assert float(lessons.cost[row, 1]) == pytest.approx(max(saved, 1e-6), rel=1e-5)
                beside = [m for m in range(slot.nodes) if m != turn.node]
                assert lessons.company[row].tolist() == [
                    float(int(turn.others[e, j]) >> m & 1) for m in beside
                ]
            row += 1
    assert row == len(lessons.weight)
    assert lessons.keeping.any()


def test_actors_start_at_what_an_untrained_critic_says(pool):
    """Its logit of keeping is the saving by the base of the critic, over the temperature."""
    slot, cached, turns, delivery, _ = played(pool)
    every = Rows.where(slot.real)
    cost = torch.zeros((*slot.size.shape, 1 << slot.nodes))
    cost[every.draw, every.block] = base_costs(slot, None, every)
    lessons = lessons_of(turns, slot, cached, delivery, cost, cost)
    keeping = lessons.keeping
    assert keeping.any()
    saved = lessons.cost[keeping, 1] / 0.1  # the temperature of `played`
    torch.testing.assert_close(
        lessons.start[keeping, 0].clamp(min=1e-4), saved.clamp(min=1e-4), rtol=1e-4, atol=1e-4
    )


def test_lessons_survive_a_checkpoint(pool):
    """What `tensors` returns is taken back unchanged."""
    slot, cached, turns, delivery, _ = played(pool)
    cost = some_costs(pool)
    lessons = lessons_of(turns, slot, cached, delivery, cost, cost)
    back = type(lessons).load(lessons.tensors(), torch.device("cpu"))
    for name, tensor in lessons.tensors().items():
        assert torch.equal(tensor, back.tensors()[name])


def test_rent_is_the_price_of_every_set(pool):
    """lambda . K, node by node."""
    slot, look = pool.episodes.slot(0), pool.values.slot(0)
    look = replace(look, price=torch.rand_like(look.price))
    rent = rents(slot, look)
    for sets in range(1 << slot.nodes):
        by_hand = sum(look.price[:, 0, n] for n in range(slot.nodes) if sets >> n & 1)
        expected = torch.as_tensor(by_hand) / unit_of(slot)
        torch.testing.assert_close(
            rent[:, sets].double(), expected.double().expand(6), rtol=1e-5, atol=1e-9
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"action_semantics": False},
        {"credit": "team"},
        {"mixing": "sum"},
        {"in_turn": False},
        {"lookahead": True},
    ],
)
def test_every_switch_learns(pool, options):
    """With every switch, losses stay finite and both networks move."""
    config = Config(**{"batch": 3, "rows": 64, "width": 16, "embedding": 8, **options})
    learner = Learner(config, FixedSource(pool), seed=0, device=torch.device("cpu"))
    before = [p.clone() for p in (*learner.actor.parameters(), *learner.critic.parameters())]
    for _ in range(12):
        assert all(math.isfinite(value) for value in learner.step().values())
    after = [*learner.actor.parameters(), *learner.critic.parameters()]
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert sum(moved) > len(moved) / 2


def test_the_target_network_follows_the_critic(pool):
    """After every step it is `target_rate` of the way from where it was to the new critic."""
    config = Config(batch=3, rows=64, width=16, embedding=8, target_rate=0.25, critic_rate=0.01)
    learner = Learner(config, FixedSource(pool), seed=0, device=torch.device("cpu"))
    learner.step()  # the first slot; the critic learns once the second one is played
    while not learner.replay.slots:
        learner.step()
    for _ in range(3):
        old = [parameter.clone() for parameter in learner.target.parameters()]
        learner.step()
        parts = (old, learner.critic.parameters(), learner.target.parameters())
        for was, ahead, now in zip(*parts, strict=True):
            torch.testing.assert_close(now, was + 0.25 * (ahead - was))
    moved = [not torch.equal(*pair) for pair in zip(old, learner.target.parameters(), strict=True)]
    assert any(moved)


@pytest.mark.parametrize("loss_of", [maasn_loss, qmix_loss])
def test_the_loss_of_the_critic_leaves_out_what_sets_share(loss_of):
    """Errors of -1 and 1 around a shared 10 count 1/2 each; the other block has none, by bytes.

    Chance moves all sets of a block alike: whatever it adds, the loss is the same.
    """
    cost = torch.tensor([[0.0, 2.0], [3.0, 4.0]])
    target = torch.tensor([[10.0, 10.0], [0.0, 1.0]])
    weight = torch.tensor([3.0, 1.0])
    assert float(loss_of(cost, target, weight)) == pytest.approx(3 * 0.5 / 4)
    chance = torch.tensor([[7.0], [-5.0]])
    assert float(loss_of(cost, target + chance, weight)) == pytest.approx(3 * 0.5 / 4)
