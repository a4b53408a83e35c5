"""Every rule of docs/formulation.md section 2, broken alone: named, placed and measured.

Each case changes one thing in the hand-made plan of `judge_cases`, which is feasible, and the
judge must name that rule, where, and by how much. Just inside a tolerance it must say nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from judge_cases import (
    CLOUD,
    FIRST,
    MEGABIT_IN_BYTES,
    SECOND,
    SHARED,
    Message,
    hand_broadcast,
    hand_evaluation,
    hand_instance,
    hand_solution,
    rules,
)

from finecast.problem.evaluation import evaluate
from finecast.problem.solution import Broadcast
from finecast.problem.violations import Violation

PLAN = hand_broadcast(SHARED, FIRST, SECOND)


def _violations(broadcast: Broadcast = PLAN, **choices: Any) -> list[Violation]:
    """Return what the judge finds in one slot of `broadcast`."""
    part = {k: choices.pop(k) for k in ("cache", "migrations") if k in choices}
    return list(evaluate(hand_instance(**choices), hand_solution(broadcast, **part)).violations)


def test_the_hand_made_plan_breaks_nothing() -> None:
    """The plan that every case below changes."""
    assert _violations() == []


def test_storage_by_one_byte() -> None:
    """Integer bytes, no tolerance: 250,000 byte in 250,000 is right, in 249,999 wrong by 1."""
    storage = (2 * MEGABIT_IN_BYTES, 2 * MEGABIT_IN_BYTES - 1)
    assert _violations(storage=storage) == [Violation("storage", 0, 1.0, "byte", node=1)]


def test_storage_of_large_sizes_is_exact() -> None:
    """One byte of 2^53 + 1, which a float64 cannot tell from 2^53."""
    size = (2**53 - 1, 1, 1)
    choices = {"block_size": size, "cache": [[(0, 1, 2), ()]]}
    used = 2**53 + 1
    found = hand_evaluation(storage=(used - 1, 0), **choices).violations
    assert found[0] == Violation("storage", 0, 1.0, "byte", node=0)
    assert "storage" not in rules(hand_evaluation(storage=(used, 0), **choices))


def test_received_blocks_do_not_count_against_storage() -> None:
    """Node 1 has room for no block at all and receives two into its transmit buffer."""
    migrations = [(0, 1, 0, 0), (0, 1, 2, CLOUD)]
    assert not _violations(
        cache=[[(0, 1), ()]], migrations=migrations, storage=(2 * MEGABIT_IN_BYTES, 0)
    )


def test_keep_only_what_was_there() -> None:
    """Node 0 has block 2 in slot 1 without having had it in slot 0: named at slot 1.

    It may when it received the block in slot 0, and dropping a block (node 1 drops 0) is free.
    """
    cache = [[(0, 1), (0, 2)], [(0, 2), (2,)]]
    second = hand_broadcast(
        replace(SHARED, nodes=(0,), amplitude=np.sqrt(3), rate=2e6), FIRST, SECOND
    )
    for migrations, expected in (
        ([], [Violation("keep", 1, MEGABIT_IN_BYTES, "byte", node=0, block=2)]),
        ([(0, 0, 2, 1)], []),
    ):
        solution = hand_solution(
            PLAN, second, cache=cache, migrations=[*migrations, (1, 0, 1, CLOUD)]
        )
        assert list(evaluate(hand_instance(slots=2), solution).violations) == expected


def test_a_needless_migration() -> None:
    """User 1 wants nothing, so nobody needs block 2, and node 0 must not fetch it."""
    found = _violations(
        hand_broadcast(replace(SHARED, users=(0,)), FIRST),
        requests=[[0, -1]],
        migrations=[(0, 0, 2, CLOUD)],
    )
    assert found == [Violation("migration-needless", 0, MEGABIT_IN_BYTES, "byte", node=0, block=2)]


def test_receiving_what_is_cached_is_wasteful_but_allowed() -> None:
    """Node 0 has block 0 and fetches it all the same; its delay counts (0.5 s from node 1)."""
    result = hand_evaluation(migrations=[(0, 0, 0, 1)])
    assert result.feasible
    assert result.delay == pytest.approx(1.75)


@pytest.mark.parametrize(
    ("cache", "migrations"),
    [
        ([[(0, 1), (2,)]], [(0, 1, 0, 0), (0, 0, 0, 1)]),  # node 1 only receives it itself
        ([[(0, 1), (0, 2)]], [(0, 0, 0, 0)]),  # from itself
    ],
    ids=["receives-only", "itself"],
)
def test_the_source_must_be_another_node_that_caches(
    cache: Any, migrations: list[tuple[int, int, int, int]]
) -> None:
    """A block received in this slot cannot be passed on in it; a node is no source of its own."""
    assert _violations(cache=cache, migrations=migrations) == [
        Violation("migration-source", 0, MEGABIT_IN_BYTES, "byte", node=0, block=0)
    ]


def test_a_link_of_rate_zero_carries_nothing() -> None:
    """Node 0 caches block 0 but has no link to node 1: the delay is infinite, and without NaN."""
    no_link = [[0, 0.0], [2e6, 0]]
    choices: dict[str, Any] = {
        "cache": [[(0, 1), (2,)]], "migrations": [(0, 1, 0, 0)], "backhaul_rate": no_link
    }  # fmt: skip
    assert _violations(**choices) == [
        Violation("migration-link", 0, MEGABIT_IN_BYTES, "byte", node=1, block=0)
    ]
    for schedule in ("sequential", "pipelined"):
        result = hand_evaluation(schedule=schedule, **choices)
        assert result.planned_delay == np.inf
        assert result.p95_completion == np.inf


def test_a_message_to_somebody_who_does_not_need_it() -> None:
    """Block 1 also for user 1, whose model has no block 1. From node 0 it would hear it well."""
    found = _violations(hand_broadcast(SHARED, replace(FIRST, users=(0, 1)), SECOND))
    assert found == [Violation("group", 0, MEGABIT_IN_BYTES, "byte", message=1, block=1, user=1)]


def test_a_user_without_a_request_needs_nothing() -> None:
    """User 1 is idle; sending it the shared block is no rule's help."""
    found = _violations(hand_broadcast(SHARED, FIRST), requests=[[0, -1]])
    assert found == [Violation("group", 0, MEGABIT_IN_BYTES, "byte", message=0, block=0, user=1)]


def test_a_bundle_is_for_users_who_need_all_of_it() -> None:
    """Blocks 0 and 1 in one message to both: user 1 needs block 0 only."""
    both = Message((0, 1), (0,), (0, 1), np.sqrt(3))
    assert _violations(hand_broadcast(both, SECOND)) == [
        Violation("group", 0, MEGABIT_IN_BYTES, "byte", message=0, block=1, user=1)
    ]


def test_everyone_gets_every_block() -> None:
    """The shared block goes to user 0 alone; user 1 never gets it."""
    found = _violations(hand_broadcast(replace(SHARED, users=(0,)), FIRST, SECOND))
    assert found == [Violation("coverage", 0, MEGABIT_IN_BYTES, "byte", block=0, user=1)]


def test_two_messages_may_cover_a_group_together() -> None:
    """The shared block as two unicasts is in order, and so is sending it to user 0 twice."""
    to_0, to_1 = replace(SHARED, users=(0,)), replace(SHARED, users=(1,))
    assert not _violations(hand_broadcast(to_0, to_1, FIRST, SECOND))
    assert not _violations(hand_broadcast(to_0, SHARED, FIRST, SECOND))


def test_cooperating_nodes_hold_the_block() -> None:
    """Node 1 neither caches nor receives block 0 and cooperates in its message."""
    assert _violations(cache=[[(0, 1), (2,)]]) == [
        Violation("cooperation", 0, MEGABIT_IN_BYTES, "byte", message=0, node=1, block=0)
    ]


def test_a_silent_partner_must_hold_the_block_too() -> None:
    """Q is what the plan states, whether or not the node's beam is zero."""
    silent = hand_broadcast(replace(SHARED, amplitude=np.sqrt(3), rate=2e6), FIRST, SECOND)
    beam = silent.beam.copy()
    beam[0, 1] = 0
    found = _violations(replace(silent, beam=beam), cache=[[(0, 1), (2,)]])
    assert [v.rule for v in found] == ["cooperation"]


def test_nodes_outside_are_silent() -> None:
    """Node 1 radiates 0.25 W in the message of node 0 alone."""
    beam = PLAN.beam.copy()
    beam[1, 1, 0] = 0.5j
    # In quadrature it only adds to the signal: |sqrt(3) - 0.5 j|^2 = 3.25, so the rate holds.
    assert _violations(replace(PLAN, beam=beam)) == [
        Violation("beam", 0, 0.25, "W", mode=1, message=1, node=1)
    ]


@pytest.mark.parametrize(("excess", "broken"), [(2e-9, True), (1e-12, False)])
def test_power_within_a_relative_tolerance(excess: float, broken: bool) -> None:
    """3 W limit, radiated 3 (1 + excess) W; the tolerance is 1e-9."""
    shared = hand_broadcast(
        replace(SHARED, nodes=(0,), amplitude=np.sqrt(3), rate=2e6), FIRST, SECOND
    )
    beam = shared.beam.copy()
    beam[1] *= np.sqrt(1 + excess)
    found = _violations(replace(shared, beam=beam), power=(3.0, 4.0))
    assert [(v.rule, v.mode, v.node) for v in found] == [("power", 1, 0)] * broken
    if broken:
        assert found[0].amount == pytest.approx(6e-9, rel=1e-6)


def test_power_adds_up_over_the_messages_of_a_mode() -> None:
    """Node 0 sends two messages of 3 W at once, limit 4 W: 2 W too much, though each is within.

    With amplitudes 1, 1 W each, it is in order (their rates: SINR 1/2).
    """
    other = Message((1,), (0,), (2,), np.sqrt(3))
    choices: dict[str, Any] = {
        "delivery": "spatial", "cache": [[(0, 1, 2), (0,)]], "storage": (10**6, 10**6)
    }  # fmt: skip
    together = [(0.25, [0]), (0.5, [1, 2])]
    power = [
        v for v in _violations(hand_broadcast(SHARED, FIRST, other, modes=together), **choices)
        if v.rule == "power"
    ]  # fmt: skip
    assert [(v.mode, v.node) for v in power] == [(1, 0)]
    assert power[0].amount == pytest.approx(2.0)
    rate = 1e6 * np.log2(1.5)
    weak = [replace(m, amplitude=1.0, rate=rate) for m in (FIRST, other)]
    in_order = hand_broadcast(SHARED, *weak, modes=[(0.25, [0]), (1e6 / rate, [1, 2])])
    assert not _violations(in_order, **choices)


@pytest.mark.parametrize(("shortage", "broken"), [(2e-9, True), (1e-12, False)])
def test_every_message_gets_its_bits(shortage: float, broken: bool) -> None:
    """1 Mbit in 0.5 s at 2 Mbit/s; 2e-9 less of the time loses 0.002 bit and is too much."""
    modes = [(0.25, [0]), (0.5 * (1 - shortage), [1]), (0.5, [2])]
    found = _violations(hand_broadcast(SHARED, FIRST, SECOND, modes=modes))
    assert [(v.rule, v.message) for v in found] == [("bits", 1)] * broken
    if broken:
        assert found[0].amount == pytest.approx(0.002, rel=1e-4)


def test_bits_add_up_over_modes() -> None:
    """The shared message in two modes of 0.1 and 0.1 s lacks 0.05 s * 4 Mbit/s = 0.2 Mbit."""
    modes = [(0.1, [0]), (0.5, [1]), (0.1, [0]), (0.5, [2])]
    plan = hand_broadcast(SHARED, FIRST, SECOND, modes=modes)
    (found,) = _violations(plan, delivery="spatial")
    assert (found.rule, found.message) == ("bits", 0)
    assert found.amount == pytest.approx(2e5)


def test_a_message_that_is_never_on_the_air() -> None:
    """Stated, to the right users, in no mode: it lacks all its 1 Mbit."""
    plan = hand_broadcast(SHARED, FIRST, SECOND, modes=[(0.25, [0]), (0.5, [1])])
    assert _violations(plan) == [Violation("bits", 0, 1e6, "bit", message=2)]


@pytest.mark.parametrize(("excess", "broken"), [(2e-9, True), (1e-12, False)])
def test_planned_rates_are_guaranteed(excess: float, broken: bool) -> None:
    """2 Mbit/s at SNR 3; 0.004 bit/s more is too much."""
    plan = hand_broadcast(SHARED, replace(FIRST, rate=2e6 * (1 + excess)), SECOND)
    found = _violations(plan)
    assert [(v.rule, v.mode, v.message) for v in found] == [("rate", 1, 1)] * broken
    if broken:
        assert found[0].amount == pytest.approx(0.004, rel=1e-4)


def test_the_weakest_user_sets_the_rate() -> None:
    """User 1 hears node 0 at half amplitude: SNR 15/4 (1 + 0.5)^2 = 8.4375 for the shared one."""
    estimate = [[1.0, 1.0], [0.5, 1.0]]
    found = _violations(estimate=estimate)
    assert [(v.rule, v.message) for v in found] == [("rate", 0)]
    assert found[0].amount == pytest.approx(4e6 - 1e6 * np.log2(9.4375))


def test_sequential_delivery_has_one_message_per_mode() -> None:
    """Without cross channels two messages at once are fine in rate, and still not allowed."""
    modes = [(1 / np.log2(4.75), [0]), (0.5, [1, 2])]
    shared = replace(SHARED, rate=1e6 * np.log2(4.75))
    plan = hand_broadcast(shared, FIRST, SECOND, modes=modes)
    estimate = [[1.0, 0.0], [0.0, 1.0]]
    assert not _violations(plan, estimate=estimate, delivery="spatial")
    assert _violations(plan, estimate=estimate) == [
        Violation("delivery", 0, 2.0, "messages in it", mode=1)
    ]


def test_sequential_delivery_has_one_mode_per_message() -> None:
    """The shared message in two parts."""
    modes = [(0.1, [0]), (0.5, [1]), (0.15, [0]), (0.5, [2])]
    plan = hand_broadcast(SHARED, FIRST, SECOND, modes=modes)
    assert not _violations(plan, delivery="spatial")
    assert _violations(plan) == [Violation("delivery", 0, 2.0, "modes for it", message=0)]


def test_a_violation_reads_as_one_line() -> None:
    """Rule, place and amount, in words a person can act on."""
    storage = (2 * MEGABIT_IN_BYTES, 2 * MEGABIT_IN_BYTES - 1)
    (found,) = _violations(storage=storage)
    assert str(found) == "storage: slot 0, node 1: the cache is larger than the storage (1 byte)"
    beam = PLAN.beam.copy()
    beam[1, 1, 0] = 0.5j
    (found,) = _violations(replace(PLAN, beam=beam))
    assert str(found).startswith("beam: slot 0, mode 1, message 1, node 1: ")


def test_every_rule_reads_as_one_line() -> None:
    """No rule lacks its words."""
    for rule in (
        "storage", "keep", "migration-needless", "migration-source", "migration-link", "group",
        "coverage", "cooperation", "beam", "power", "bits", "rate", "delivery",
    ):  # fmt: skip
        line = str(Violation(rule, 3, 1.5, "unit", node=0))
        assert line.startswith(f"{rule}: slot 3, node 0: ")
        assert "\n" not in line
