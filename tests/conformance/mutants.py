"""Methods that are wrong on purpose, each in one respect."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from finecast.problem.evaluation import evaluate
from finecast.problem.files import FormatError, read_json
from finecast.solvers.heuristics.rolling import Rolling
from finecast.solvers.online import solve_by_policy
from finecast.solvers.registry import method_of
from finecast.solvers.restrictions import check_restrictions
from finecast.solvers.result import Answer, BoundKind, Progress, Termination, TracePoint
from finecast.solvers.search import Search
from finecast.solvers.solve import answer_of


def by(method: str, instance, *, seed: int = 0, **options) -> Answer:
    """Return the answer of a method that is right."""
    return answer_of(method_of(method), instance, Search(seed=seed), **options)


def undocumented_option(instance, *, time_limit, gap, seed, start, callback, depth=3):
    """Have an option that is nowhere explained."""
    return by("greedy", instance, seed=seed)


def option_without_default(instance, *, time_limit, gap, seed, start, callback, depth):
    """Need a depth."""
    return by("greedy", instance, seed=seed)


def lacks_seed(instance, *, time_limit, gap, start, callback):
    """Lack the keyword for the seed."""
    return by("greedy", instance)


def overfull(instance, *, time_limit, gap, seed, start, callback):
    """Cache everything everywhere."""
    answer = by("greedy", instance, seed=seed)
    return replace(answer, solution=replace(answer.solution, cache=answer.solution.cache | True))


def other_blocks(instance, *, time_limit, gap, seed, start, callback):
    """Answer for another number of blocks, and say so."""
    return by("greedy", instance, seed=seed, restrict="coarse")


def easier_instance(instance, *, time_limit, gap, seed, start, callback):
    """Answer an instance of better channels, and say so."""
    return by(
        "greedy",
        replace(
            instance,
            channel_estimate=2 * instance.channel_estimate,
            channel_error=2 * instance.channel_error,
            channel_true=2 * instance.channel_true,
        ),
        seed=seed,
    )


def tells_text(instance, *, time_limit, gap, seed, start, callback):
    """Tell its progress in words."""
    if callback is not None:
        callback("half way")
    return by("greedy", instance, seed=seed)


def told_progress(instance, *, time_limit, gap, seed, start, callback):
    """Tell its progress as one should."""
    if callback is not None:
        callback(Progress("greedy", 1, 2))
    return by("greedy", instance, seed=seed)


def nominal_called_guaranteed(instance, *, time_limit, gap, seed, start, callback):
    """Plan without errors and claim a guarantee."""
    answer = by("greedy", instance, seed=seed, restrict="non-robust")
    return replace(answer, solution=replace(answer.solution, planned="guaranteed"))


def bound_above_own_delay(instance, *, time_limit, gap, seed, start, callback):
    """State a bound 1 per cent above the delay."""
    answer = by("greedy", instance, seed=seed)
    return replace(answer, lower_bound=1.01 * evaluate(instance, answer.solution).delay)


def bound_by_optimism(instance, *, time_limit, gap, seed, start, callback):
    """State the delay of a bad placement as a bound."""
    answer = by("random", instance, seed=seed)
    return replace(answer, lower_bound=evaluate(instance, answer.solution).delay)


def no_bound(instance, *, time_limit, gap, seed, start, callback):
    """State no bound."""
    answer = by("greedy", instance, seed=seed)
    return replace(answer, lower_bound=0.0, bound_kind=BoundKind.NONE)


def honest(instance, *, time_limit, gap, seed, start, callback):
    """Be the greedy."""
    return by("greedy", instance, seed=seed)


_RUNS = itertools.count()


def unseeded(instance, *, time_limit, gap, seed, start, callback):
    """Draw from another seed in every run; from fresh entropy two draws could be the same."""
    return by("random", instance, seed=next(_RUNS) % 2)


def global_seeding(instance, *, time_limit, gap, seed, start, callback):
    """Seed the global state of NumPy."""
    np.random.seed(seed)  # noqa: NPY002
    return by("greedy", instance, seed=seed)


def bound_by_the_clock(instance, *, time_limit, gap, seed, start, callback):
    """State a bound that is another one in every run."""
    answer = by("greedy", instance, seed=seed)
    share = 0.5 + 0.4 * np.random.default_rng().random()
    return replace(answer, lower_bound=share * answer.lower_bound)


def calls_nothing_a_time_limit(instance, *, time_limit, gap, seed, start, callback):
    """Give nothing, and say that there is a solution."""
    return replace(
        by("greedy", instance, seed=seed), solution=None, termination=Termination.TIME_LIMIT
    )


def always_cut(instance, *, time_limit, gap, seed, start, callback):
    """Say that the search was cut, with time enough."""
    return replace(by("greedy", instance, seed=seed), cut=("search",))


def overruns(instance, *, time_limit, gap, seed, start, callback):
    """Take its time."""
    time.sleep(0.3)
    return by("greedy", instance, seed=seed)


def claims_optimality(instance, *, time_limit, gap, seed, start, callback):
    """Call a random placement optimal."""
    return replace(by("random", instance, seed=seed), termination=Termination.OPTIMAL)


def claims_the_gap(instance, *, time_limit, gap, seed, start, callback):
    """Call the gap reached without a bound that says so."""
    answer = by("greedy", instance, seed=seed)
    bound = 0.1 * answer.lower_bound
    return replace(answer, lower_bound=bound, termination=Termination.GAP_REACHED)


def takes_any_text(instance, *, time_limit, gap, seed, start, callback, rule="greedy"):
    """Go by a rule, whatever it is called."""
    return by("greedy", instance, seed=seed)


def looks_up(instance, *, time_limit, gap, seed, start, callback, rule="greedy"):
    """Go by a rule; raise KeyError for an unknown one."""
    return by({"greedy": "greedy"}[rule], instance, seed=seed)


def refuses_at_length(instance, *, time_limit, gap, seed, start, callback, rule="greedy"):
    """Go by a rule; refuse an unknown one in two lines."""
    if rule != "greedy":
        raise ValueError(f"rule: {rule!r} is unknown\nexpected 'greedy'")
    return by("greedy", instance, seed=seed)


def refuses_vaguely(instance, *, time_limit, gap, seed, start, callback, rule="greedy"):
    """Go by a rule; refuse an unknown one without saying which it was."""
    if rule != "greedy":
        raise ValueError("unknown rule")
    return by("greedy", instance, seed=seed)


def divides(instance, *, time_limit, gap, seed, start, callback, parts=2):
    """Divide by the number of parts."""
    return by("greedy", instance, seed=seed + 1 // parts)


def ignores_the_start(instance, *, time_limit, gap, seed, start, callback):
    """Declare warm starts, and place at random."""
    if start is not None and start.cache.shape[2] != instance.blocks:
        raise ValueError("start: is for other blocks")
    return by("random", instance, seed=seed)


def takes_any_start(instance, *, time_limit, gap, seed, start, callback):
    """Declare warm starts, and do not look whether the start fits."""
    return by("lagrangian", instance, seed=seed)


def notes_an_object(instance, *, time_limit, gap, seed, start, callback):
    """Leave an object among the notes."""
    return replace(by("greedy", instance, seed=seed), notes=(object(),))


def trace_back_in_time(instance, *, time_limit, gap, seed, start, callback):
    """Trace backwards."""
    trace = (TracePoint(2.0, np.inf, 0.0), TracePoint(1.0, np.inf, 0.0))
    return replace(by("greedy", instance, seed=seed), trace=trace)


def trace_above_the_bound(instance, *, time_limit, gap, seed, start, callback):
    """Trace a bound that the result does not have."""
    return replace(by("greedy", instance, seed=seed), trace=(TracePoint(0.0, np.inf, 1e9),))


def another_hash(instance, *, time_limit, gap, seed, start, callback):
    """Name another instance in the solution."""
    answer = by("greedy", instance, seed=seed)
    return replace(answer, solution=replace(answer.solution, instance_hash="0" * 64))


def needs_requests(instance, *, time_limit, gap, seed, start, callback):
    """Divide by the requests of the last slot."""
    active = int((instance.requests[-1] >= 0).sum())
    return by("greedy", instance, seed=seed + 0 // active)


def needs_storage(instance, *, time_limit, gap, seed, start, callback):
    """Cache the smallest block, if it fits or not."""
    answer = by("greedy", instance, seed=seed)
    cache = answer.solution.cache.copy()
    if not instance.network.storage.any():
        cache[0, 0, instance.library.block_size.argmin()] = True
    return replace(answer, solution=replace(answer.solution, cache=cache))


def needs_rates(instance, *, time_limit, gap, seed, start, callback):
    """Take for granted that there is a solution."""
    answer = by("greedy", instance, seed=seed)
    return replace(answer, solution=replace(answer.solution, method="mine"))


def bound_in_sequence(instance, *, time_limit, gap, seed, start, callback):
    """State the sequential delay as a bound, whatever overlaps."""
    answer = by("greedy", instance, seed=seed)
    if instance.schedule == "sequential":
        return answer
    delay = evaluate(instance, answer.solution).sequential_delay
    return replace(answer, lower_bound=delay)


def bound_one_at_a_time(instance, *, time_limit, gap, seed, start, callback):
    """State the bound of sequential delivery, however the messages are sent."""
    bound = by("greedy", replace(instance, delivery="sequential"), seed=seed).lower_bound
    return replace(by("greedy", instance, seed=seed), lower_bound=bound)


def _restricted_but(part, instance, restrict, seed):
    kept = check_restrictions(restrict) - {part}
    return by("greedy", instance, seed=seed, restrict=kept)


def sends_blocks(instance, *, time_limit, gap, seed, start, callback, restrict=()):
    """Keep to every restriction but whole models: restrict."""
    return _restricted_but("coarse", instance, restrict, seed)


def migrates(instance, *, time_limit, gap, seed, start, callback, restrict=()):
    """Keep to every restriction but no migration: restrict."""
    return _restricted_but("no-migration", instance, restrict, seed)


def cooperates(instance, *, time_limit, gap, seed, start, callback, restrict=()):
    """Keep to every restriction but single cells: restrict."""
    return _restricted_but("no-comp", instance, restrict, seed)


def broadcasts(instance, *, time_limit, gap, seed, start, callback, restrict=()):
    """Keep to every restriction but unicast: restrict."""
    return _restricted_but("unicast", instance, restrict, seed)


def stays_robust(instance, *, time_limit, gap, seed, start, callback, restrict=()):
    """Keep to every restriction but nominal plans: restrict."""
    return _restricted_but("non-robust", instance, restrict, seed)


def sees_the_truth(instance, *, time_limit, gap, seed, start, callback):
    """Seed by the true channels."""
    noise = int(1e12 * abs(instance.channel_true).sum()) % 2**31
    return by("random", instance, seed=noise)


def sees_all_requests(instance, *, time_limit, gap, seed, start, callback):
    """Place by the requests of all slots, and declare to be online."""
    return by("greedy", instance, seed=seed)


def sees_the_first_requests(instance, *, time_limit, gap, seed, start, callback):
    """Choose x[0] by the requests of slot 0, and declare to be online."""
    return by("random", instance, seed=int(instance.requests[0].sum()) + 7)


class OneSlotAhead(Rolling):
    """Keep what the next slot asks for, of what rolling would keep."""

    def __init__(self, requests) -> None:
        super().__init__()
        object.__setattr__(self, "to_come", requests)

    def act(self, observation, cache):
        """Drop what the next slot does not need."""
        source, keep = super().act(observation, cache)
        coming = self.to_come[observation.t + 1 :][:1]
        asked = coming[coming >= 0]
        if not len(coming):
            return source, keep
        return source, keep & observation.prior.library.model_blocks[asked].any(axis=0)


def sees_the_next_slot(instance, *, time_limit, gap, seed, start, callback):
    """Keep by the requests of slot t + 1, one slot ahead and no more, and declare to be online."""
    policy = OneSlotAhead(instance.requests)
    return solve_by_policy(policy, "sees_the_next_slot", instance, seed=seed)


class PeeksAtTheCaller(OneSlotAhead):
    """A policy that finds the instance in the frames of its callers."""

    def __init__(self) -> None:
        super().__init__(None)

    def act(self, observation, cache):
        """Take the requests to come from where the instance is."""
        frame = sys._getframe()
        while "instance" not in frame.f_locals:
            frame = frame.f_back
        object.__setattr__(self, "to_come", frame.f_locals["instance"].requests)
        return super().act(observation, cache)


def sees_the_last_channel(instance, *, time_limit, gap, seed, start, callback):
    """Aim the beams of slot 0 by the channels of the last slot, and declare to be online."""
    slow = instance.channel_estimate[-1, 0, 0, 0].real > 0
    return by("lru", instance, seed=seed, beamforming="matched" if slow else "multicast")


def takes_any_checkpoint(instance, *, time_limit, gap, seed, start, callback, checkpoint=""):
    """Say that the weights come from a checkpoint, and never open it."""
    return by("lru", instance, seed=seed)


def opens_blindly(instance, *, time_limit, gap, seed, start, callback, checkpoint=""):
    """Let the operating system say that a checkpoint is missing."""
    (Path(checkpoint) / "policy.json").read_bytes()
    return by("lru", instance, seed=seed)


def reads_half(instance, *, time_limit, gap, seed, start, callback, checkpoint=""):
    """Refuse a missing description, and never open the weights."""
    read_json(Path(checkpoint) / "policy.json")
    return by("lru", instance, seed=seed)


def reads_all(instance, *, time_limit, gap, seed, start, callback, checkpoint=""):
    """Refuse what is missing or damaged: what one should do with a checkpoint."""
    read_json(Path(checkpoint) / "policy.json")
    weights = Path(checkpoint) / "policy.safetensors"
    try:
        load_file(weights)
    except (OSError, SafetensorError) as error:
        raise FormatError(weights, str(error)) from None
    return by("lru", instance, seed=seed)
