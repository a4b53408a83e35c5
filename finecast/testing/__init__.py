"""Checks that any method must pass, a third party's or our own; no test framework needed.

In a test of your own package, with pytest::

    import pytest
    from finecast.testing import CHECKS

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_method(check):
        check("my-method")

or all at once, anywhere: ``check_method("my-method")``. A learner is an online method with the
option ``checkpoint``: ``check_method("policy", checkpoint="runs/x")``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finecast.problem.instance import Instance
from finecast.testing.checks import (
    check_bound,
    check_checkpoint,
    check_declaration,
    check_extremes,
    check_feasible,
    check_future,
    check_options,
    check_pipelined,
    check_restrictions,
    check_result,
    check_seed,
    check_spatial,
    check_start,
    check_termination,
    check_time_limit,
    check_true_channel,
)
from finecast.testing.instances import another_future, another_truth, small_instance

CHECKS: tuple[Callable[..., None], ...] = (
    check_declaration,
    check_feasible,
    check_bound,
    check_seed,
    check_time_limit,
    check_termination,
    check_options,
    check_start,
    check_result,
    check_extremes,
    check_pipelined,
    check_spatial,
    check_restrictions,
    check_true_channel,
    check_future,
    check_checkpoint,
)
"""Every check, in the order in which `check_method` runs them."""

__all__ = [
    "CHECKS",
    "another_future",
    "another_truth",
    "check_bound",
    "check_checkpoint",
    "check_declaration",
    "check_extremes",
    "check_feasible",
    "check_future",
    "check_method",
    "check_options",
    "check_pipelined",
    "check_restrictions",
    "check_result",
    "check_seed",
    "check_spatial",
    "check_start",
    "check_termination",
    "check_time_limit",
    "check_true_channel",
    "small_instance",
]


def check_method(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """Run every check on a registered method.

    Parameters
    ----------
    name
        Registered name; see `finecast.solvers.registry.methods`.
    instance
        Where to check it; None for `small_instance()`. Keep it small: some checks solve it ten
        times.
    **options
        The method's own options, such as a learner's `checkpoint`.

    Raises
    ------
    AssertionError
        The first check that fails, in one line.
    ValueError
        There is no such method.
    """
    for check in CHECKS:
        check(name, instance, **options)
