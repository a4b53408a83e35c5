"""The judge against a second, slow one, on random instances and plans, broken ones too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_cases import random_instance, random_mutation, random_solution, rules
from judged_alike import JUDGED_CASES, assert_judged_alike

from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution


def _random_case(
    seed: int, mutations: int, planned: str, delivery: str, schedule: str
) -> tuple[Instance, Solution]:
    rng = np.random.default_rng(seed)
    instance = random_instance(
        rng,
        slots=int(rng.integers(1, 4)),
        users=int(rng.integers(1, 5)),
        nodes=int(rng.integers(1, 4)),
        antennas=int(rng.integers(1, 3)),
        blocks=int(rng.integers(1, 7)),
        models=int(rng.integers(1, 4)),
        delivery=delivery,
        schedule=schedule,
        relative_error=float(rng.choice([0.0, 0.1, 0.3, 0.9])),
        max_spectral_efficiency=float(rng.choice([np.inf, 3.0])),
    )
    solution = random_solution(rng, instance, planned=planned)
    for _ in range(mutations):
        solution = random_mutation(rng, instance, solution) or solution
    if mutations == 3:
        instance = replace(instance, delivery="sequential")
    return instance, solution


@settings(max_examples=120, deadline=None)
@given(mutations=st.just(0), **JUDGED_CASES)
def test_feasible_solutions_are_judged_alike(**case: object) -> None:
    """Fast and slow judge agree on random solutions that are built to be feasible."""
    instance, solution = _random_case(**case)
    result = assert_judged_alike(instance, solution)
    # A rate that random beams leave at (nearly) 0 breaks `bits`; nothing else may go wrong.
    assert set(rules(result)) <= {"bits"}
    if solution.planned == "guaranteed" and result.feasible:
        assert result.realised_delay == pytest.approx(result.delay, rel=1e-12)
    assert result.pipelined_delay <= result.sequential_delay * (1 + 1e-12)
    larger = np.maximum(result.slot_migration, result.slot_broadcast).sum()
    assert result.pipelined_delay >= larger * (1 - 1e-12)


@settings(max_examples=200, deadline=None)
@given(mutations=st.integers(1, 3), **JUDGED_CASES)
def test_broken_solutions_are_judged_alike(**case: object) -> None:
    """Fast and slow judge name the same violations after up to three random changes."""
    assert_judged_alike(*_random_case(**case))


def test_random_cases_reach_every_rule() -> None:
    """The cases above break every rule there is, and repeat and fail: else they show little."""
    broken: set[str] = set()
    feasible = repeated = outages = 0
    for seed in range(400):
        case = _random_case(
            seed,
            mutations=seed % 4,
            planned=["guaranteed", "nominal"][seed // 4 % 2],
            delivery=["sequential", "spatial"][seed // 8 % 2],
            schedule=["sequential", "pipelined"][seed // 16 % 2],
        )
        result = evaluate(*case)
        broken |= set(rules(result))
        feasible += result.feasible
        repeated += result.feasible and result.realised_delay > result.planned_delay * 1.001
        outages += result.outages > 0
    assert broken == {
        "storage", "keep", "migration-needless", "migration-source", "migration-link", "group",
        "coverage", "cooperation", "beam", "power", "bits", "rate", "delivery",
    }  # fmt: skip
    assert feasible > 100
    assert repeated > 20
    assert outages
