"""What must not matter does not: names, units and the granularity of blocks.

Random solutions, feasible and broken, are rewritten in an equivalent form; the judge must find the
same delays and the same violations in the new places. Sums may run in another order: 1e-9 relative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_cases import random_instance, random_mutation, random_solution

from finecast.problem.demand import Demand
from finecast.problem.evaluation import Evaluation, evaluate
from finecast.problem.instance import Instance
from finecast.problem.library import ModelLibrary
from finecast.problem.solution import Broadcast, Solution

Case = tuple[Instance, Solution]

SECONDS = (
    "delay", "realised_delay", "planned_delay", "sequential_delay", "pipelined_delay",
    "slot_delay", "slot_migration", "slot_broadcast", "slot_realised_delay", "block_migration",
    "block_air_time", "user_completion", "mean_completion", "p95_completion",
    "area_delay", "longest_area_delay", "p95_area_delay",
)  # fmt: skip


def random_case(
    seed: int, mutations: int, planned: str, delivery: str, schedule: str
) -> tuple[Case, np.random.Generator]:
    """Return a random instance, a solution with some random changes, and the generator."""
    rng = np.random.default_rng(seed)
    instance = random_instance(
        rng, slots=2, users=4, nodes=3, antennas=2, blocks=6, models=3,
        delivery=delivery, schedule=schedule, relative_error=0.3,
    )  # fmt: skip
    solution = random_solution(rng, instance, planned=planned)
    for _ in range(mutations):
        solution = random_mutation(rng, instance, solution) or solution
    return (instance, solution), rng


any_case = st.builds(
    random_case,
    seed=st.integers(0, 2**32),
    mutations=st.integers(0, 2),
    planned=st.sampled_from(["guaranteed", "nominal"]),
    delivery=st.sampled_from(["sequential", "spatial"]),
    schedule=st.sampled_from(["sequential", "pipelined"]),
)
quickly = settings(max_examples=40, deadline=None)


def places(evaluation: Evaluation, **new_name: np.ndarray) -> set[tuple[Any, ...]]:
    """Return the violations as a set, with some of the names replaced: node=new_name[node]."""
    return {
        (
            v.rule,
            v.slot,
            *(
                int(new_name[part][getattr(v, part)])
                if part in new_name and getattr(v, part) is not None
                else getattr(v, part)
                for part in ("node", "block", "user", "message", "mode")
            ),
        )
        for v in evaluation.violations
    }


def assert_same(
    before: Evaluation, after: Evaluation, *, seconds: float = 1.0, skip: tuple[str, ...] = ()
) -> None:
    """Check every figure, delays and energy multiplied by `seconds`."""
    for field in fields(before):
        if field.name == "violations" or field.name in skip:
            continue
        scale = seconds if field.name in (*SECONDS, "transmit_energy") else 1.0
        assert getattr(after, field.name) == pytest.approx(
            getattr(before, field.name) * scale, rel=1e-9, abs=1e-12, nan_ok=True
        ), field.name


def on_every_broadcast(solution: Solution, change: Callable[[Broadcast], Broadcast]) -> Solution:
    """Return the solution with each slot's broadcast changed."""
    return replace(solution, broadcasts=tuple(change(b) for b in solution.broadcasts))


def renamed(order: np.ndarray) -> np.ndarray:
    """Return the new name of each old index, where new index i holds the old order[i]."""
    return np.argsort(order)


@quickly
@given(any_case)
def test_users_by_another_name(case: tuple[Case, np.random.Generator]) -> None:
    """New user i is the old order[i], in requests, channels, demand and messages."""
    (instance, solution), rng = case
    order = rng.permutation(instance.users)
    other = replace(
        instance,
        demand=replace(
            instance.demand,
            preference=instance.demand.preference[:, order],
            activity=instance.demand.activity[order],
        ),
        requests=instance.requests[:, order],
        channel_estimate=instance.channel_estimate[:, order],
        channel_error=instance.channel_error[:, order],
        channel_true=instance.channel_true[:, order],
        user_position=instance.user_position[order],
    )
    before = evaluate(instance, solution)
    after = evaluate(
        other, on_every_broadcast(solution, lambda b: replace(b, users=b.users[:, order]))
    )
    assert places(after) == places(before, user=renamed(order))
    assert after.user_completion == pytest.approx(
        before.user_completion[:, order], rel=1e-9, nan_ok=True
    )
    assert_same(before, after, skip=("user_completion",))


@quickly
@given(any_case)
def test_nodes_by_another_name(case: tuple[Case, np.random.Generator]) -> None:
    """New node i is the old order[i], in network, channels, caches, sources and beams."""
    (instance, solution), rng = case
    order = rng.permutation(instance.nodes)
    name = renamed(order)
    network = instance.network
    other = replace(
        instance,
        network=replace(
            network,
            storage=network.storage[order],
            power=network.power[order],
            backhaul_rate=network.backhaul_rate[np.ix_(order, order)],
            cloud_rate=network.cloud_rate[order],
            node_position=network.node_position[order],
        ),
        channel_estimate=instance.channel_estimate[:, :, order],
        channel_error=instance.channel_error[:, :, order],
        channel_true=instance.channel_true[:, :, order],
    )
    new_source = np.append(name, [instance.nodes, -1])  # the cloud and "none" keep their values
    same = replace(
        on_every_broadcast(
            solution, lambda b: replace(b, nodes=b.nodes[:, order], beam=b.beam[:, order])
        ),
        cache=solution.cache[:, order],
        source=new_source[solution.source[:, order]],
    )
    before, after = evaluate(instance, solution), evaluate(other, same)
    assert places(after) == places(before, node=name)
    assert_same(before, after)


@quickly
@given(any_case)
def test_blocks_by_another_name(case: tuple[Case, np.random.Generator]) -> None:
    """New block i is the old order[i], in library, caches, sources and messages."""
    (instance, solution), rng = case
    order = rng.permutation(instance.blocks)
    library = instance.library
    other = replace(
        instance,
        library=ModelLibrary(library.block_size[order], library.model_blocks[:, order]),
    )
    same = replace(
        on_every_broadcast(solution, lambda b: replace(b, blocks=b.blocks[:, order])),
        cache=solution.cache[:, :, order],
        source=solution.source[:, :, order],
    )
    before, after = evaluate(instance, solution), evaluate(other, same)
    assert places(after) == places(before, block=renamed(order))
    for per_block in ("block_migration", "block_air_time"):
        assert getattr(after, per_block) == pytest.approx(getattr(before, per_block)[:, order])
    assert_same(before, after, skip=("block_migration", "block_air_time"))


@quickly
@given(any_case)
def test_models_by_another_name(case: tuple[Case, np.random.Generator]) -> None:
    """New model i is the old order[i]: nothing in a solution names a model."""
    (instance, solution), rng = case
    order = rng.permutation(instance.models)
    library, demand = instance.library, instance.demand
    other = replace(
        instance,
        library=ModelLibrary(library.block_size, library.model_blocks[order]),
        demand=Demand(demand.preference[:, :, order], demand.persistence, demand.activity),
        requests=np.append(renamed(order), -1)[instance.requests],
    )
    before, after = evaluate(instance, solution), evaluate(other, solution)
    assert places(after) == places(before)
    assert_same(before, after)


@quickly
@given(any_case)
def test_transmissions_in_another_order(case: tuple[Case, np.random.Generator]) -> None:
    """The rows of mode, message, beam and rate may be listed in any order."""
    (instance, solution), rng = case

    def shuffled(b: Broadcast) -> Broadcast:
        order = rng.permutation(len(b.rate))
        rows = {name: getattr(b, name)[order] for name in ("mode", "message", "beam", "rate")}
        return replace(b, **rows)

    before = evaluate(instance, solution)
    after = evaluate(instance, on_every_broadcast(solution, shuffled))
    assert places(after) == places(before)
    assert_same(before, after)


@quickly
@given(
    st.builds(
        random_case,
        seed=st.integers(0, 2**32),
        mutations=st.integers(0, 2),
        planned=st.sampled_from(["guaranteed", "nominal"]),
        delivery=st.just("sequential"),
        schedule=st.sampled_from(["sequential", "pipelined"]),
    )
)
def test_messages_by_another_number(case: tuple[Case, np.random.Generator]) -> None:
    """In a sequential schedule the order of the modes counts, and how messages are numbered not."""
    (instance, solution), rng = case
    orders = [rng.permutation(b.messages) for b in solution.broadcasts]
    same = replace(
        solution,
        broadcasts=tuple(
            replace(
                b,
                users=b.users[order],
                nodes=b.nodes[order],
                blocks=b.blocks[order],
                message=renamed(order)[b.message],
            )
            for b, order in zip(solution.broadcasts, orders, strict=True)
        ),
    )
    before, after = evaluate(instance, solution), evaluate(instance, same)
    assert len(after.violations) == len(before.violations)
    figures = ["sequential_delay", "slot_migration", "block_air_time", "transmit_energy"]
    if instance.schedule == "sequential":
        figures += ["delay", "realised_delay", "user_completion"]
    for figure in figures:
        assert getattr(after, figure) == pytest.approx(
            getattr(before, figure), rel=1e-9, nan_ok=True
        ), figure


@quickly
@given(any_case, st.floats(1e-4, 1e4))
def test_unit_of_the_channel(case: tuple[Case, np.random.Generator], factor: float) -> None:
    """Channels and errors times c, noise power times c^2: the same SNRs."""
    (instance, solution), _ = case
    other = replace(
        instance,
        network=replace(instance.network, noise_power=instance.network.noise_power * factor**2),
        channel_estimate=instance.channel_estimate * factor,
        channel_error=instance.channel_error * factor,
        channel_true=instance.channel_true * factor,
    )
    before, after = evaluate(instance, solution), evaluate(other, solution)
    assert places(after) == places(before)
    assert_same(before, after)


@quickly
@given(any_case, st.floats(1e-3, 1e3))
def test_unit_of_power(case: tuple[Case, np.random.Generator], factor: float) -> None:
    """Power limits and noise power times c, beams times sqrt(c): c times the energy, else alike."""
    (instance, solution), _ = case
    network = instance.network
    other = replace(
        instance,
        network=replace(
            network, power=network.power * factor, noise_power=network.noise_power * factor
        ),
    )
    scaled = on_every_broadcast(solution, lambda b: replace(b, beam=b.beam * np.sqrt(factor)))
    before, after = evaluate(instance, solution), evaluate(other, scaled)
    assert places(after) == places(before)
    assert after.transmit_energy == pytest.approx(before.transmit_energy * factor)
    assert_same(before, after, skip=("transmit_energy",))


def _other_rates(instance: Instance, solution: Solution, factor: float) -> Case:
    """Return both with every rate, of links, band and plan, times `factor`."""
    network = instance.network
    other = replace(
        instance,
        network=replace(
            network,
            bandwidth=network.bandwidth * factor,
            backhaul_rate=network.backhaul_rate * factor,
            cloud_rate=network.cloud_rate * factor,
        ),
    )
    return other, on_every_broadcast(solution, lambda b: replace(b, rate=b.rate * factor))


@quickly
@given(any_case, st.floats(1e-2, 1e2))
def test_unit_of_time(case: tuple[Case, np.random.Generator], factor: float) -> None:
    """All rates times c and durations over c: every delay, and the energy, over c."""
    (instance, solution), _ = case
    other, scaled = _other_rates(instance, solution, factor)
    scaled = on_every_broadcast(scaled, lambda b: replace(b, duration=b.duration / factor))
    before, after = evaluate(instance, solution), evaluate(other, scaled)
    assert places(after) == places(before)
    assert_same(before, after, seconds=1 / factor)


@quickly
@given(any_case, st.integers(2, 1000))
def test_unit_of_information(case: tuple[Case, np.random.Generator], factor: int) -> None:
    """All rates, sizes and storage times c: the same delays, and c times the bytes."""
    (instance, solution), _ = case
    other, scaled = _other_rates(instance, solution, float(factor))
    library, network = instance.library, other.network
    other = replace(
        other,
        library=ModelLibrary(library.block_size * factor, library.model_blocks),
        network=replace(network, storage=network.storage * factor),
    )
    before, after = evaluate(instance, solution), evaluate(other, scaled)
    assert places(after) == places(before)
    sizes = ("migrated_bytes", "cloud_bytes", "storage_saved_bytes")
    for size in sizes:
        assert getattr(after, size) == pytest.approx(getattr(before, size) * factor)
    assert_same(before, after, skip=sizes)


@quickly
@given(any_case, st.integers(0, 5))
def test_two_halves_of_a_block(case: tuple[Case, np.random.Generator], block: int) -> None:
    """A block cut in two halves that are cached, moved and sent together changes no delay.

    The halves stand side by side, so that other blocks keep their order in the messages.
    """
    (instance, solution), _ = case
    twice = np.repeat(np.arange(instance.blocks), 1 + (np.arange(instance.blocks) == block))
    library = instance.library
    size = (2 * library.block_size)[twice]
    size[twice == block] //= 2
    network = replace(instance.network, storage=2 * instance.network.storage)
    whole, halved = (
        replace(instance, network=network, library=ModelLibrary(size, blocks))
        for size, blocks in (
            (2 * library.block_size, library.model_blocks),
            (size, library.model_blocks[:, twice]),
        )
    )
    longer = on_every_broadcast(solution, lambda b: replace(b, duration=b.duration * 2))
    same = replace(
        longer,
        cache=solution.cache[:, :, twice],
        source=solution.source[:, :, twice],
        broadcasts=tuple(replace(b, blocks=b.blocks[:, twice]) for b in longer.broadcasts),
    )
    before, after = evaluate(whole, longer), evaluate(halved, same)
    assert {v.rule for v in after.violations} == {v.rule for v in before.violations}
    first = np.searchsorted(twice, np.arange(instance.blocks))
    for per_block in ("block_migration", "block_air_time"):
        merged = np.add.reduceat(getattr(after, per_block), first, axis=1)
        assert merged == pytest.approx(getattr(before, per_block))
    assert_same(before, after, skip=("block_migration", "block_air_time", "block_hit_ratio"))
