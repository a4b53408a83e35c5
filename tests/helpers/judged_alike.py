"""Compares the judge with the slow one, which is written from the formulation alone."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import strategies as st
from slow_judge import place, slow_evaluate

from finecast.problem.evaluation import Evaluation, evaluate
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution

JUDGED_CASES = {
    "seed": st.integers(0, 2**32),
    "planned": st.sampled_from(["guaranteed", "nominal"]),
    "delivery": st.sampled_from(["sequential", "spatial"]),
    "schedule": st.sampled_from(["sequential", "pipelined"]),
}
"""What random cases are drawn from, for hypothesis."""


def assert_judged_alike(instance: Instance, solution: Solution) -> Evaluation:
    """Check that both judges agree in everything; return what the fast one says."""
    fast, slow = evaluate(instance, solution), slow_evaluate(instance, solution)
    places = [
        place(v.rule, v.slot, v.node, v.block, v.user, v.message, v.mode) for v in fast.violations
    ]
    assert len(places) == len(set(places))
    assert set(places) == slow.violations
    for field in fields(slow):
        if field.name != "violations":
            assert getattr(fast, field.name) == pytest.approx(
                np.array(getattr(slow, field.name)), rel=1e-9, abs=1e-12, nan_ok=True
            ), field.name
    return fast
