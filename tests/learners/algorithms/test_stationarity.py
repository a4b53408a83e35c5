"""The terms of the statement on convergence: closed forms, brute force, and the bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from learner_scenarios import scenario

from finecast.learners.algorithms.actors import ActorOptions, actor_network, actors_of, gumbel_noise
from finecast.learners.algorithms.lessons import (
    NO_MARGIN,
    Lessons,
    keep_loss,
    keep_values,
    lessons_of,
    pull_loss,
)
from finecast.learners.algorithms.set_values import Rows, backup, value_after
from finecast.learners.algorithms.stationarity import (
    cost_changes,
    divergence,
    followed,
    keep_weight,
    logits_of,
    margin,
    of_pairs,
    pull_weighted,
    regrets,
    rows_in,
    squared_norm,
    weighted,
    within_limit,
)
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import packed, step

OPTIONS = ActorOptions(temperature=0.1)
CLIP = 3.0


@pytest.fixture(scope="module")
def episodes():
    """Four draws of three nodes."""
    return surrogate_episodes(scenario(), range(4))


@pytest.fixture(scope="module")
def network():
    """Actors whose heads are not 0."""
    torch.manual_seed(1)
    network = actor_network(OPTIONS, 3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return network


@pytest.fixture(scope="module")
def stage(episodes, network):
    """Slot 1 played with exploration: slot, cached, turns, delivery; then costs (E, J, S)."""
    generator = torch.Generator().manual_seed(0)
    actors = actors_of(OPTIONS, network, None, generator)
    slot, cache = episodes.slot(1), episodes.start
    with torch.no_grad():
        delivery, _ = step(slot, cache, actors, rounds=actors.rounds)
    cost = torch.rand((*slot.size.shape, 8), generator=generator)
    cost = 0.3 * cost.flip(2).cumsum(2).flip(2)
    return slot, packed(cache), actors.turns, delivery, cost


def rows_of(keeping: list[bool], start: list[list[float]], cost: list[list[float]]) -> Lessons:
    """Lessons of which only the costs matter."""
    size = len(keeping)
    return Lessons(
        seen=None,  # type: ignore[arg-type]
        keeping=torch.tensor(keeping),
        company=torch.zeros(size, 2),
        start=torch.tensor(start),
        cost=torch.tensor(cost),
        weight=torch.ones(size),
    )


LOGITS = torch.tensor([[0.4, 0.0, 0.0], [2.3, 0.0, 0.0], [0.3, -1.2, 0.9], [1.0, -math.inf, 2.0]])
LESSONS = rows_of(
    [True, True, False, False],
    [[0.0] * 3] * 4,
    [[0.05, 0.13, 0.0], [0.2, 0.9, 0.0], [0.10, 0.31, 0.02], [0.6, 0.0, 0.1]],
)
"""Two rows of keeping, one beyond the limit, and two of pulling, one with a closed source."""


def test_the_gradient_of_the_losses_is_that_of_the_statement():
    """The mean over many draws of the noise of `keep_loss` and `pull_loss` is M_tau (z + c)."""
    tau, temperature, draws = 0.7, OPTIONS.temperature, 200_000
    generator = torch.Generator().manual_seed(0)
    logits = LOGITS.clone().requires_grad_()
    cost = LESSONS.cost / temperature
    uniform = torch.rand((2, draws), generator=generator).clamp(1e-6, 1 - 1e-6)
    keep = keep_loss(
        logits[:2, 0], torch.logit(uniform), cost[:2, 0], cost[:2, 1], tau=tau, clip=CLIP
    )
    noise = gumbel_noise((2, draws, 3), generator)
    pull = pull_loss(logits[2:], noise, cost[2:], tau=tau, clip=CLIP)
    (sampled,) = torch.autograd.grad(keep.sum() + pull.sum(), logits)
    regret = regrets(LESSONS, LOGITS, clip=CLIP, temperature=temperature)
    noise = gumbel_noise((4, draws, 3), generator)
    exact = weighted(LESSONS, LOGITS, regret, tau=tau, noise=noise, temperature=temperature)
    torch.testing.assert_close(sampled, exact, atol=8e-3, rtol=8e-3)


def test_without_relaxation_it_is_the_gradient_of_a_divergence():
    """At tau = 0 the field is the derivative of `divergence`, which is 0 where z = -c."""
    logits = LOGITS.clone().requires_grad_()
    value = divergence(LESSONS, logits, clip=CLIP, temperature=OPTIONS.temperature)
    assert (value > 0).all()
    # The costs are constants: their rows of keeping are measured from what is displaced.
    (found,) = torch.autograd.grad(value.sum(), logits)
    regret = regrets(LESSONS, LOGITS, clip=CLIP, temperature=OPTIONS.temperature)
    exact = weighted(
        LESSONS,
        LOGITS,
        regret,
        tau=0.0,
        noise=torch.zeros(4, 1, 3),
        temperature=OPTIONS.temperature,
    )
    torch.testing.assert_close(found, exact)
    wanted = rows_of([True, False], [[0.0] * 3] * 2, [[0.05, 0.13, 0.0], [0.1, 0.2, 0.3]])
    best = torch.tensor([[1.3, 0.0, 0.0], [-1.0, -2.0, -3.0]])
    at_best = divergence(wanted, best, clip=CLIP, temperature=0.1)
    torch.testing.assert_close(at_best, torch.zeros(2), atol=1e-6, rtol=0)


def test_a_node_with_room_for_everything_learns_nothing():
    """Where nothing is displaced the field and the divergence are 0."""
    free = rows_of([True], [[0.0] * 3], [[NO_MARGIN, 0.3, 0.0]])
    logits = torch.tensor([[1.0, 0.0, 0.0]])
    regret = regrets(free, logits, clip=CLIP, temperature=0.1)
    found = weighted(free, logits, regret, tau=1.0, noise=torch.zeros(1, 1, 3), temperature=0.1)
    assert not found.any()
    assert not divergence(free, logits, clip=CLIP, temperature=0.1).any()


def test_weight_of_keeping_in_closed_form_and_its_bound():
    """At tau = 1 the density of a sum of two logistic numbers; the bound of the statement holds."""
    over = torch.linspace(-6, 6, 24, dtype=torch.float64)
    e = over.exp()
    exact = e * ((over - 2) * e + over + 2) / (e - 1) ** 3
    torch.testing.assert_close(keep_weight(over, 1.0), exact, rtol=2e-2, atol=1e-4)
    hard = torch.sigmoid(over) * torch.sigmoid(-over)
    torch.testing.assert_close(keep_weight(over, 0.0), hard)
    for tau in (0.1, 0.3, 1.0, 3.0):
        far = (keep_weight(over, tau) - hard).abs().max()
        assert far <= min(0.25, math.pi**2 * tau**2 / 48)
    assert float((keep_weight(over, 1.0) - hard).abs().max()) > 0.08  # 1/4 - 1/6 at 0


def test_weights_of_pulling_within_their_bounds():
    """0 <= M <= 1/2, constants give 0, costs of range 2 delta at most delta."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        logits = 3 * torch.randn(1, 4, generator=generator)
        noise = gumbel_noise((1, 2000, 4), generator)
        columns = [pull_weighted(logits, unit[None], 1.0, noise)[0] for unit in torch.eye(4)]
        matrix = torch.stack(columns)
        values = torch.linalg.eigvalsh(matrix)
        assert -1e-6 <= float(values[0])
        assert float(values[-1]) <= 0.5
        assert not pull_weighted(logits, torch.ones(1, 4), 1.0, noise).abs().max() > 1e-6
        costs = torch.randn(1, 4, generator=generator)
        effect = pull_weighted(logits, costs, 1.0, noise).norm()
        assert effect <= (costs.max() - costs.min()) / 2


def test_bias_of_one_block_is_known_and_within_its_bound():
    """One copy whose logit is the parameter: an error e of its cost gives w e, at most |e| / 4."""
    logits = torch.tensor([[0.5, 0.0, 0.0]])
    true = rows_of([True], [[0.0] * 3], [[0.05, 0.13, 0.0]])
    told = rows_of([True], [[0.0] * 3], [[0.05, 0.16, 0.0]])  # it is said to save 0.03 more
    fields = [
        weighted(
            lessons,
            logits,
            regrets(lessons, logits, clip=10.0, temperature=0.1),
            tau=1.0,
            noise=torch.zeros(1, 1, 3),
            temperature=0.1,
        )[0, 0]
        for lessons in (true, told)
    ]
    bias = float(fields[1] - fields[0])
    assert bias == pytest.approx(-float(keep_weight(torch.tensor(0.0), 1.0)) * 0.3, rel=1e-4)
    assert bias == pytest.approx(-0.3 / 6, rel=2e-2)
    assert abs(bias) <= 0.3 / 4


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_bound_of_the_theorem_holds_on_a_quadratic(power):
    """j = |x|^2 / 2 by gradients that are old by up to B steps, biased, noisy and clipped."""
    generator = torch.Generator().manual_seed(3)
    steps, lag, runs, eta, q, limit = 400, 8, 200, 0.05, 100.0, 10.0
    rates = [eta / (1 + k / q) ** power for k in range(steps)]
    bias = torch.tensor([0.3, -0.1, 0.2])
    x = torch.ones(runs, 3)
    past, squares, biases = [x], [], []
    start = float((x[0] ** 2).sum() / 2)
    for rate in rates:
        before = past[max(0, len(past) - 1 - lag)]
        gradient = before + bias + torch.randn(runs, 3, generator=generator)
        norm = gradient.norm(dim=1, keepdim=True)
        assert float(norm.max()) < limit  # no step is shortened, so the bias is known
        squares.append(float((before**2).sum(1).mean()))
        biases.append(float((bias**2).sum()))
        x = x - rate * gradient
        past.append(x)
    total = sum(rates)
    left = sum(r * s for r, s in zip(rates, squares, strict=True)) / total
    second = 10.0  # more than the mean of |gradient|^2, which falls from 3 + |1 + bias|^2
    right = (2 * start + (1 + 4 * lag) * second * sum(r**2 for r in rates)) / total
    right += sum(r * b for r, b in zip(rates, biases, strict=True)) / total
    assert left <= right
    # Where steps do not fall the end is near -bias: the term of the bias cannot be left out.
    assert float(past[-1].mean(0).norm()) > 0.2


def test_what_pairs_of_nodes_can_represent():
    """Functions of pairs come back; of the product of three nodes, 1/8 of its sign is missing."""
    sets = torch.arange(8)
    bit = [(sets >> n & 1).double() for n in range(3)]
    pairs = 0.7 - bit[0] + 0.2 * bit[2] + 1.5 * bit[0] * bit[1] - bit[1] * bit[2]
    torch.testing.assert_close(of_pairs(pairs), pairs)
    triple = bit[0] * bit[1] * bit[2]
    missing = triple - of_pairs(triple)
    sign = (2 * bit[0] - 1) * (2 * bit[1] - 1) * (2 * bit[2] - 1)
    torch.testing.assert_close(missing, sign / 8)


def test_a_future_by_the_values_themselves_is_the_backup(stage):
    """`followed` with the critic's values after the slot is `backup`, for all sets."""
    slot, _, _, _, cost = stage
    rent = 0.1 * torch.rand(slot.draws, 8, generator=torch.Generator().manual_seed(5)).cumsum(1)
    rows = Rows.where(slot.real)
    found = followed(slot, rent, cost, cost)
    after = value_after(rent[rows.draw] + rows.pick(cost))
    torch.testing.assert_close(rows.pick(found), backup(slot, after, rows), rtol=1e-5, atol=1e-5)
    # Any other values are followed by the same decisions, so a constant goes through.
    torch.testing.assert_close(followed(slot, rent, cost, cost + 2.0), found + 2.0)


def test_small_changes_of_values_change_costs_as_told(stage, network):
    """Costs of actions at G + h change less those at G are h times `cost_changes`, in every row."""
    slot, cached, turns, delivery, cost = stage
    generator = torch.Generator().manual_seed(6)
    change = torch.randn(cost.shape, generator=generator)
    rent = torch.zeros(slot.draws, 8)
    small = 1e-4

    def costs(table: torch.Tensor) -> torch.Tensor:
        after = value_after((rent[:, None] + table).flatten(0, 1)).reshape(table.shape)
        return lessons_of(turns, slot, cached, delivery, table, after).cost

    cost, change = cost.double(), change.double()
    before, after = costs(cost), costs(cost + small * change)
    slope = (after.double() - before) / small
    found = cost_changes(turns, slot, cached, delivery, rent, cost, change)
    lessons = lessons_of(turns, slot, cached, delivery, cost, cost)
    full = lessons.keeping & (lessons.cost[:, 0] > -1e20)
    torch.testing.assert_close(
        (slope[:, 0] - slope[:, 1])[full], found[full, 0], rtol=1e-3, atol=5e-3
    )
    pulls = ~lessons.keeping[:, None] & (logits_of(network, lessons, 0.1) > -torch.inf)
    assert pulls.any()
    assert full.any()
    torch.testing.assert_close(slope[pulls], found[pulls], rtol=1e-3, atol=2e-2)


def test_the_margin_is_the_block_that_lessons_displace(stage):
    """What it saves is `displaced` of `keep_values`, where not everything fits."""
    slot, _, turns, delivery, cost = stage
    for turn in turns:
        if turn.keeping:
            displaced, saved = keep_values(turn.node, slot, delivery.sender, cost, turn.others)
            block, full = margin(turn.node, slot, delivery.sender, cost, turn.others)
            assert torch.equal(full, displaced > -1e20)
            assert torch.equal(saved.gather(1, block[:, None])[full, 0], displaced[full])
    rows, node = rows_in(turns)
    assert len(rows.draw) == len(node) == sum(len(turn.rows.draw) for turn in turns)


def test_costs_at_their_limit_do_not_change():
    """The difference quotient of the limited costs, up to a constant of every row of pulling."""
    generator = torch.Generator().manual_seed(7)
    change = torch.randn(4, 3, generator=generator).double()
    step_size, temperature = 1e-5, 0.1
    moved = LESSONS.cost.double() + step_size * temperature * change
    # Of keeping, the change is that of displaced less saved.
    moved[:2] = LESSONS.cost[:2].double()
    moved[:2, 1] -= step_size * temperature * change[:2, 0]
    before, after = (
        regrets(replace(LESSONS, cost=cost), LOGITS.double(), clip=CLIP, temperature=temperature)
        for cost in (LESSONS.cost.double(), moved)
    )
    slope = (after - before) / step_size
    found = within_limit(LESSONS, LOGITS.double(), change, clip=CLIP, temperature=temperature)
    torch.testing.assert_close(slope[:2, 0], found[:2, 0], rtol=1e-4, atol=1e-4)
    assert found[1, 0] == 0  # beyond the limit
    for row in (2, 3):
        allowed = LOGITS[row] > -math.inf
        torch.testing.assert_close(slope[row, allowed], found[row, allowed], rtol=1e-4, atol=1e-4)


def test_squared_norm_is_the_mean_of_products_of_two_parts():
    """By enumeration of all pairs; of noise alone it is 0 on average."""
    generator = torch.Generator().manual_seed(8)
    parts = torch.randn(5, 3, generator=generator).double()
    pairs = [float(parts[i] @ parts[k]) for i in range(5) for k in range(5) if i != k]
    assert float(squared_norm(parts)) == pytest.approx(sum(pairs) / len(pairs))
    many = torch.randn(2000, 6, 4, generator=generator).double()
    assert abs(float(torch.stack([squared_norm(part) for part in many]).mean())) < 0.05
