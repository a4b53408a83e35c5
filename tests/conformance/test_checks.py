"""The checks have teeth: for each there are methods, wrong in one respect, that it finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from finecast import testing
from finecast.solvers.registry import Method, methods
from finecast.testing import CHECKS, check_method

MUTANTS = [
    ("check_declaration", "undocumented_option", "option 'depth' does not stand in the docstring"),
    ("check_declaration", "option_without_default", "option 'depth' has the default"),
    ("check_declaration", "lacks_seed", "lacks the keyword 'seed'"),
    ("check_feasible", "overfull", "breaks .* rules .*first storage"),
    ("check_feasible", "other_blocks", "the judge refuses it"),
    ("check_feasible", "easier_instance", "breaks .* rules .*first rate"),
    ("check_feasible", "tells_text", "told 'half way', which is no Progress"),
    ("check_feasible", "nominal_called_guaranteed", "breaks .* rules .*first rate"),
    ("check_bound", "bound_above_own_delay", "is above the judged delay"),
    ("check_bound", "bound_by_optimism", "exceeds the delay of method 'lagrangian'"),
    ("check_bound", "no_bound", "declares a bound, gives 0.0 s"),
    ("check_seed", "unseeded", "two runs with seed 5 differ in caches"),
    ("check_seed", "global_seeding", "draws from, or seeds, a global random state"),
    ("check_seed", "bound_by_the_clock", "two runs with seed 5 give the bounds"),
    ("check_time_limit", "calls_nothing_a_time_limit", "no solution .* ends as 'time_limit'"),
    ("check_time_limit", "overfull", "breaks .* rules with time_limit 0.0, first storage"),
    ("check_time_limit", "always_cut", "says that a limit cut search; there was none"),
    ("check_termination", "claims_optimality", "ends as 'optimal' with a gap of"),
    ("check_termination", "claims_the_gap", "ends as 'gap_reached' with a gap of"),
    ("check_options", "takes_any_text", "accepts rule='no such choice', must raise ValueError"),
    ("check_options", "looks_up", "raises KeyError: .* must be a ValueError"),
    ("check_options", "refuses_at_length", "refuses rule='no such choice' in 2 lines"),
    ("check_options", "refuses_vaguely", "without naming 'no such choice': unknown rule"),
    ("check_options", "divides", "raises ZeroDivisionError"),
    ("check_start", "ignores_the_start", "declares warm_starts, but from"),
    ("check_start", "takes_any_start", "accepts start=a solution"),
    ("check_result", "notes_an_object", "cannot be written as JSON"),
    ("check_result", "trace_back_in_time", "its trace goes back in time"),
    ("check_result", "trace_above_the_bound", r"its trace has a bound of 1000000000\.0 s"),
    ("check_result", "another_hash", "its solution names another instance"),
    ("check_extremes", "needs_requests", "ZeroDivisionError.* with a last slot without requests"),
    ("check_extremes", "needs_storage", "breaks .* rules with no storage"),
    ("check_extremes", "needs_rates", "raises TypeError.* with hopeless channels"),
    ("check_pipelined", "bound_in_sequence", "above the judged delay .* with schedule pipelined"),
    ("check_spatial", "bound_one_at_a_time", "above the judged delay .* with delivery spatial"),
    ("check_restrictions", "sends_blocks", "caches have shape .* with restrict=coarse"),
    ("check_restrictions", "migrates", "with restrict=no-migration migrates between nodes"),
    ("check_restrictions", "cooperates", "with restrict=no-comp serves a user"),
    ("check_restrictions", "broadcasts", "with restrict=unicast sends a message"),
    ("check_restrictions", "stays_robust", "with restrict=non-robust plans guaranteed rates"),
    ("check_true_channel", "sees_the_truth", "with other true channels it changes its caches"),
    ("check_future", "sees_all_requests", "is online, but its caches"),
    ("check_future", "sees_the_first_requests", "its caches of slot 0 change"),
    ("check_future", "sees_the_next_slot", "is online, but its caches up to slot"),
    ("check_future", "sees_the_last_channel", "its messages up to slot"),
]


@pytest.fixture
def register(monkeypatch):
    """Return a function that registers one of the mutants for the length of a test."""

    def registered(function: str, **fields: object) -> str:
        declared = {"setting": "offline", "summary": "a mutant", **fields}
        monkeypatch.setitem(
            methods(), function, Method(function, f"mutants:{function}", **declared)
        )
        return function

    return registered


@pytest.mark.parametrize(("check", "function", "line"), MUTANTS)
def test_a_wrong_method_is_found(check, function, line, register):
    """The check fails, and its one line says what is wrong with which method."""
    name = register(
        function,
        setting="online" if check == "check_future" else "offline",
        warm_starts=check == "check_start",
    )
    with pytest.raises(AssertionError, match=rf"^{function}: .*{line}") as caught:
        getattr(testing, check)(name)
    assert "\n" not in str(caught.value)


def test_a_policy_that_cheats_is_found(register):
    """Nobody hands a policy the future; one that gets hold of it all the same is found."""
    name = register("PeeksAtTheCaller", setting="online", kind="policy")
    with pytest.raises(AssertionError, match="is online, but its caches up to slot"):
        testing.check_future(name)


def test_every_check_has_a_mutant():
    """No check goes untested; `check_checkpoint` has its own, below."""
    assert {check.__name__ for check in CHECKS} - {check for check, _, _ in MUTANTS} == {
        "check_checkpoint"
    }


def test_honest_methods_pass(register):
    """What the mutants are made of passes everything, and so does a method that tells progress."""
    check_method(register("honest"))
    testing.check_feasible(register("told_progress"))
    testing.check_bound(register("no_bound", gives_bound=False))


def test_check_method_runs_the_checks(register):
    """All at once finds what one check finds."""
    with pytest.raises(AssertionError, match="with restrict=unicast"):
        check_method(register("broadcasts"))


def test_a_bound_that_is_not_declared_is_found(register):
    """A method that declares no bound must not state one, or tables would show it."""
    with pytest.raises(AssertionError, match="declares none"):
        testing.check_bound(register("honest", gives_bound=False))


def test_a_summary_of_two_lines_is_found(register):
    """`finecast methods` prints one line a method."""
    with pytest.raises(AssertionError, match="must be one line"):
        testing.check_declaration(register("honest", summary="one\ntwo"))


def test_overrunning_is_found(register):
    """A method that sleeps 0.3 s takes longer than its limit and no patience at all."""
    name = register("overruns")
    with pytest.raises(AssertionError, match=r"took .* s with time_limit 0\.0"):
        testing.check_time_limit(name, patience_s=0.0)
    testing.check_time_limit(name, patience_s=math.inf)


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("takes_any_checkpoint", "accepts checkpoint='.*missing'"),
        ("opens_blindly", "raises FileNotFoundError: .* must be a ValueError"),
        ("reads_half", r"accepts checkpoint='.*damaged\.safetensors'"),
        ("reads_all", None),
    ],
)
def test_checkpoints(function, line, register, tmp_path):
    """A missing, empty or truncated checkpoint must be refused, weights and description alike."""
    save_file({"weight": np.zeros(100)}, tmp_path / "policy.safetensors")
    (tmp_path / "policy.json").write_text('{"format": "mutant"}')
    name = register(function, setting="online", needs_training=True)
    if line is None:
        testing.check_checkpoint(name, checkpoint=str(tmp_path))
    else:
        with pytest.raises(AssertionError, match=rf"^{function}: {line}"):
            testing.check_checkpoint(name, checkpoint=str(tmp_path))


def test_an_unknown_method_is_refused():
    """A misspelt name is a ValueError with the nearest name, and no failed check."""
    with pytest.raises(ValueError, match="did you mean 'greedy'"):
        check_method("gredy")
