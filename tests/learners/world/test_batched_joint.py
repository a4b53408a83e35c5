"""The joint keep rule for many draws at once: bytes, enumeration, and the rule it stands for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from learner_scenarios import scenario
from torch import Tensor

from finecast.learners.world.baselines import Rolling
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import (
    View,
    deliver,
    keep_slot,
    keep_turns,
    packed,
    unpacked,
)
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.joint import joint_prices, keep_by_sets, plan_by_sets


@cache
def drawn(tiny: bool = False) -> Episodes:
    """Return draws: of 3 nodes and 12 blocks, or of 2 nodes and 4 blocks."""
    library = {"synthetic": {"models": 3, "blocks": 4, "families": 1, "total_gb": 1.0}}
    changes = {"nodes": {"count": 2}, "library": library} if tiny else {}
    return surrogate_episodes(scenario(**changes), range(8))


def keeping(t: int = 1, tiny: bool = False) -> View:
    """Return slots when all is delivered, after the start was kept."""
    episodes = drawn(tiny)
    slot, cached = episodes.slot(t), packed(episodes.start)
    held = deliver(slot, cached, None).sender
    return View(slot, cached, held, cached * 0, keeping=True)


def random_costs(view: View, seed: int) -> Tensor:
    """Return (E, J, S) costs of any sign, mostly falling with every copy."""
    generator = torch.Generator().manual_seed(seed)
    worth = torch.rand((*view.held.shape, view.slot.nodes), generator=generator)
    member = view.slot.member.float()
    return 0.2 * torch.rand((*view.held.shape, len(member)), generator=generator) - (
        worth @ member.T
    )


def bytes_of(view: View, keep: Tensor) -> Tensor:
    """Return (E, N) what is kept, byte."""
    return (keep * view.slot.size[:, None]).sum(dim=2)


def value(view: View, cost: Tensor, sets: Tensor) -> Tensor:
    """Return (E,) what the kept sets cost."""
    taken = cost.double().gather(2, sets[..., None])[..., 0]
    return (view.slot.size * taken).sum(dim=1)


class Costs(Rolling):
    """The costs of sets are given."""

    def __init__(self, cost: Tensor) -> None:
        object.__setattr__(self, "cost", cost)

    def set_costs(self, view: View) -> Tensor:
        return self.cost


def test_what_is_kept_is_there_and_fits_to_the_byte() -> None:
    """Random costs, storage of a few bytes more or less than some blocks, or none at all."""
    for seed in range(12):
        view = keeping(t=seed % 3)
        sizes = view.slot.size.gather(1, view.slot.size.argsort(dim=1)[:, -4:])
        storage = sizes.cumsum(dim=1)[:, [0, 1, 3]] - torch.tensor([0.0, 1.0, 0.0])
        storage[0, 0] = 0.0
        view = replace(view, slot=replace(view.slot, storage=storage))
        cost = random_costs(view, seed)
        planned = unpacked(plan_by_sets(view.slot, view.held, cost), view.slot.nodes)
        for keep in (planned, keep_slot(view, Costs(cost), joint="batched")):
            assert not bool((keep & ~unpacked(view.held, view.slot.nodes)).any())
            assert bool((bytes_of(view, keep) <= storage).all())


def test_a_draw_is_planned_the_same_alone_and_beside_others() -> None:
    """And twice the same."""
    view = keeping()
    cost = random_costs(view, 0)
    together = keep_slot(view, Costs(cost), joint="batched")
    assert torch.equal(together, keep_slot(view, Costs(cost), joint="batched"))
    for draw in range(4):
        slot = drawn().select([draw]).slot(1)
        alone = View(slot, view.cached[[draw]], view.held[[draw]], view.kept[[draw]], keeping=True)
        found = keep_slot(alone, Costs(cost[[draw]]), joint="batched")
        assert torch.equal(found[0], together[draw])


def test_the_value_is_near_that_of_the_rule_and_below_that_of_nodes_in_turn() -> None:
    """On the expected delays of 24 slots: at most 1 % over the rule on average."""
    total = np.zeros(3)
    for t in (0, 1, 2):
        view = keeping(t=t)
        cost = Rolling().set_costs(view)
        in_turn = keep_turns(view, Rolling(), 3)
        exact = keep_by_sets(view.slot, unpacked(view.held, view.slot.nodes), cost, in_turn)
        mine = keep_slot(view, Rolling(), joint="batched")
        total += [float(value(view, cost, packed(keep)).sum()) for keep in (exact, mine, in_turn)]
    assert total[0] <= total[1] < total[2]
    assert total[1] < 1.01 * total[0]


def best_of_all(view: View, cost: Tensor, draw: int) -> float:
    """Return the least cost of all feasible keeps of a draw, by enumeration."""
    slot, best = view.slot, np.inf
    size, storage = slot.size[draw].numpy(), slot.storage[draw].numpy()
    for sets in itertools.product(range(1 << slot.nodes), repeat=slot.blocks):
        keep = np.array(sets) >> np.arange(slot.nodes)[:, None] & 1
        if (keep @ size <= storage).all() and not any(
            kept & ~int(held) for kept, held in zip(sets, view.held[draw], strict=True)
        ):
            taken = cost[draw, np.arange(slot.blocks), list(sets)].double().numpy()
            best = min(best, float(size @ taken))
    return best


def duals(view: View, cost: Tensor, draw: int, prices: np.ndarray) -> np.ndarray:
    """Return (P,) sum_j s_j min over K within Q_j of [G_j(K) + lambda . K], less lambda . S.

    K are sets of nodes that have room for the block; prices (P, N).
    """
    slot = view.slot
    member, storage = slot.member.numpy(), slot.storage[draw].numpy()
    total = -prices @ storage
    for j in range(slot.blocks):
        size, held = float(slot.size[draw, j]), int(view.held[draw, j])
        within = [k for k in range(len(member)) if not k & ~held]
        within = [k for k in within if (size <= storage[member[k]]).all()]
        charge = cost[draw, j].double().numpy() + prices @ member.T
        total += size * charge[:, within].min(axis=1)
    return total


def test_prices_maximise_the_dual_which_is_below_the_best_of_all_keeps() -> None:
    """Two nodes, four blocks: all feasible keeps, and all prices of a grid."""
    view = keeping(tiny=True)
    slot, gaps = view.slot, []
    grid = np.array(list(itertools.product(np.linspace(0, 1.5, 61), repeat=2)))
    for seed in range(2):
        cost = random_costs(view, seed)
        prices = joint_prices(slot, view.held, cost).double().numpy()
        for draw in range(slot.draws):
            found = float(duals(view, cost, draw, prices[[draw]])[0])
            best = best_of_all(view, cost, draw)
            scale = float((slot.size[draw] * (cost[draw].amax(1) - cost[draw].amin(1))).sum())
            assert found <= best + 1e-6 * scale
            assert found >= duals(view, cost, draw, grid).max() - 0.02 * scale
            gaps.append((best - found) / scale)
    assert min(gaps) < 0.01  # none, where no block is left out for want of some bytes


def test_nothing_to_gain_has_the_price_0() -> None:
    """Where all sets cost the same, storage is worth nothing; and the plan still fits."""
    view = keeping()
    cost = torch.zeros((*view.held.shape, 8))
    assert float(joint_prices(view.slot, view.held, cost).abs().max()) == 0.0
    plan = plan_by_sets(view.slot, view.held, cost)
    assert bool((bytes_of(view, unpacked(plan, 3)) <= view.slot.storage).all())
