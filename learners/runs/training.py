"""Training: steps, log, held-out evaluation, checkpoints; what is killed goes on exactly.

A run's folder holds `log.jsonl`, the newest states, and the best policy so far (`policy.json`).
All that a step depends on is in a state or follows from the seed, so that a run which is killed and
resumed ends with the same weights as one which is not.

The first step is made before the held-out draws are prepared, which can take minutes. The policy of
step 0 is kept aside for it, and measured right after it.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from finecast.learners.learner import Learner
from finecast.learners.registry import learner_kind
from finecast.learners.runs.checkpoints import (
    POLICY,
    Checkpoint,
    read_checkpoint,
    remove_leftovers,
    remove_state,
    states,
    write_checkpoint,
)
from finecast.learners.runs.config import RunConfig
from finecast.learners.runs.held_out import HeldOut, held_out, measured
from finecast.learners.runs.log import Log
from finecast.learners.runs.source import ScenarioSource
from finecast.learners.runs.warm_start import read_start, start_from
from finecast.learners.weights import Part, load_tensors, part_of, tensors_of
from finecast.learners.world.area_draws import trained_on
from finecast.problem.files import FormatError, concerning, sole_writer
from finecast.problem.scenario import Scenario, read_scenario
from finecast.solvers.result import Callback, Progress
from finecast.solvers.workers import ALONE, Workers


class LossNotFiniteError(ValueError):
    """A loss is not finite; the message names the last good checkpoint."""


class TrainingInterrupt(KeyboardInterrupt):
    """Ctrl-C while a run was training; its state is written, and a resumed run goes on from it.

    Parameters
    ----------
    trained
        What the run has come to.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__(f"training {trained.ended} after {trained.steps} steps")
        self.trained = trained


@dataclass(frozen=True)
class Trained:
    """What a run ended with.

    Attributes
    ----------
    folder
        Where its checkpoints are.
    steps
        Made in all.
    best
        Metrics of the best policy on the held-out draws.
    train_s, cpu_s
        Wall-clock and CPU seconds, those before a resume included.
    ended
        "completed", "early stop" or "interrupted".
    """

    folder: Path
    steps: int
    best: Mapping[str, float]
    train_s: float
    cpu_s: float
    ended: str

    @property
    def checkpoint(self) -> str:
        """The best policy, for the option `checkpoint` of the method `policy`."""
        return str(self.folder / f"{POLICY}.json")


class _Clock:
    """Seconds spent, those of earlier sittings included."""

    def __init__(self, state: Checkpoint | None, workers: Workers) -> None:
        self._workers = workers
        self._wall = (state.train_s if state else 0.0) - time.perf_counter()
        self._cpu = (state.cpu_s if state else 0.0) - time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "train_s": self._wall + time.perf_counter(),
            "cpu_s": self._cpu + time.process_time() + self._workers.cpu_s,
        }


@dataclass
class _Best:
    """The best policy so far, how many held-out evaluations ago it was, and the last of these.

    `metrics` are those of the best policy, `last` and `at` metrics and step of the last evaluation.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    last: dict[str, float] = field(default_factory=dict)
    at: int = -1


def train(
    run: RunConfig,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    callback: Callback | None = None,
    workers: Workers = ALONE,
) -> Trained:
    """Train a learner; leave its best policy and its newest states in a folder.

    Parameters
    ----------
    run
        What to train on, how long, how.
    folder
        Made if it is not there.
    resume
        Go on from the newest state in the folder; start if there is none.
    callback
        Receives the progress of the run.
    workers
        Who makes the draws of training and of the held-out evaluation; the run is the same.

    Raises
    ------
    FormatError
        A scenario or checkpoint is bad, another training writes to the folder, or the disk is full;
        earlier checkpoints are whole.
    TrainingInterrupt
        Ctrl-C: a `KeyboardInterrupt`, after the step and with its state written. A second Ctrl-C
        ends the run at once, with the states written before.
    LossNotFiniteError
        A loss is not finite.
    ValueError
        An option is not allowed, or the folder holds another run.
    """
    # A scenario that is none leaves no folder behind.
    _scenarios(run)
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(target, f"cannot be made: {error.strerror}") from None
    with sole_writer(target, "training"):
        return _train(run, target, resume, callback, workers)


def _train(
    run: RunConfig, target: Path, resume: bool, callback: Callback | None, workers: Workers
) -> Trained:
    """Train in a folder that nobody else writes to; parameters and errors as in `train`."""
    # What the run goes on from, or starts from. Both are read before the draws are made, which
    # takes longer: they may be bad.
    state = _newest(run, target, resume)
    remove_leftovers(target)
    clock = _Clock(state, workers)
    torch.set_num_threads(run.threads)
    warm_start = None
    if state is None and run.warm_start:
        warm_start = read_start(run.warm_start, run.learner, run.learner_options)
    # The learner at step 0, or where the state or the warm start leaves it.
    learner, measure = _prepared(run, callback, workers, at_once=state is not None)
    step, best, last = 0, _Best(), "none was written"
    if warm_start is not None:
        start_from(learner, warm_start)
    if state is not None:
        last = str(states(target)[-1])
        try:
            load_tensors(learner.parts(), state.tensors)
            learner.load_extra(part_of(state.tensors, "extra"), state.counters["learner"])
            # States of earlier versions were written at evaluations alone.
            known = state.counters["best"]
            best = _Best(**{"last": known["metrics"], "at": state.step, **known})
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(last, str(error)) from None
        step = state.step

    def write(name: str, metrics: Mapping[str, float]) -> str:
        """Write a state, or of a policy what is needed to play it; return the header's path."""
        tensors, counters = learner.extra()
        tensors = tensors_of(learner.parts()) | {f"extra/{k}": v for k, v in tensors.items()}
        if name == POLICY:
            tensors = {key: value for key, value in tensors.items() if key.startswith(POLICY)}
            counters = {}
        saved = Checkpoint(
            run.learner,
            asdict(run.learner_options),
            run.as_dict(),
            step,
            **clock.read(),
            tensors=tensors,
            counters={"learner": counters, "best": asdict(best)},
            metrics=metrics,
        )
        return str(write_checkpoint(target, name, saved))

    def evaluate() -> None:
        """Measure the policy on the held-out draws, and keep the best one."""
        metrics = measure(learner)
        log.add({"step": step, **clock.read(), **_named("held_out", metrics)})
        best.last, best.at = metrics, step
        better = not best.metrics or metrics["gap"] < best.metrics["gap"]
        best.stale = 0 if better else best.stale + 1
        if better:
            best.metrics = metrics
            write(POLICY, metrics)

    ended = "completed"
    first: dict[str, torch.Tensor] | None = None  # the policy of step 0, while not yet measured
    made = state is not None  # whether there is a state to go on from
    with (
        Log(target, None if state is None else step, run.tensorboard) as log,
        _interruptible() as interrupted,
    ):
        while True:
            # A resumed run may have measured its policy at its state already.
            due = step % run.validate_every == 0 or step == run.steps
            if due and step != best.at:
                if step == 0:
                    first = _policy_of(learner)
                else:
                    evaluate()
            # Reasons to end, and the newest states: what a killed run goes on from.
            if run.patience and best.stale >= run.patience:
                ended = "early stop"
            if interrupted() and 0 < step < run.steps:
                ended = "interrupted"
            # There is none of step 0, whose policy is not measured yet: the first is of step 1.
            state_due = step % run.checkpoint_every == 0 or step == run.steps or not made
            if first is None and (state_due or ended != "completed"):
                made = True
                last = write(f"state-{step:08d}", best.metrics)
                for old in states(target)[: -run.keep]:
                    remove_state(old)
            if step == run.steps or ended != "completed":
                break
            # One step; a loss that is not finite would spoil every later state.
            row = learner.step()
            spent = clock.read()
            if not all(math.isfinite(value) for value in row.values()):
                raise LossNotFiniteError(
                    f"step {step + 1}: loss is not finite ({row}); "
                    f"the last good checkpoint is {last}"
                )
            # After the first step, what the policy was before it.
            if first is not None:
                if callback is not None:
                    note = "held out: not measured yet"
                    callback(Progress(f"training {run.learner}", 1, run.steps, note))
                newer = _policy_of(learner)
                load_tensors(_policy_parts(learner), first)
                evaluate()
                load_tensors(_policy_parts(learner), newer)
                first = None
            step += 1
            if step % run.log_every == 0:
                log.add({"step": step, **spent, **row})
            if callback is not None:
                callback(Progress(f"training {run.learner}", step, run.steps, _note(best)))
        stopped = interrupted()
    trained = Trained(target, step, best.metrics, **clock.read(), ended=ended)
    if stopped:  # it ends the loop or program around, also where it came with the last step
        raise TrainingInterrupt(trained)
    return trained


def _policy_parts(learner: Learner) -> dict[str, Part]:
    """Return the networks that the policy needs."""
    return {name: part for name, part in learner.parts().items() if name.startswith(POLICY)}


def _policy_of(learner: Learner) -> dict[str, torch.Tensor]:
    """Return copies of the tensors of the policy."""
    return {name: value.clone() for name, value in tensors_of(_policy_parts(learner)).items()}


def _scenarios(run: RunConfig) -> list[Scenario]:
    """Return the scenarios of the run with its changes."""
    return [read_scenario(name).with_(run.scenario) for name in run.scenarios]


def _prepared(
    run: RunConfig, callback: Callback | None, workers: Workers, *, at_once: bool
) -> tuple[Learner, Callable[[Learner], dict[str, float]]]:
    """Return the learner at step 0, and what measures one on the held-out draws.

    Parameters
    ----------
    run, callback, workers
        As in `train`.
    at_once
        Prepare the held-out draws now, and not when they are needed first.
    """
    device = _device(run.device)
    scenarios = [trained_on(scenario) for scenario in _scenarios(run)]
    kind = learner_kind(run.learner).load(run.information)
    information = getattr(run.learner_options, "beliefs", None)
    with concerning(", ".join(run.scenarios)):
        source = ScenarioSource(
            scenarios,
            run.source,
            run.seed,
            steps=run.steps,
            callback=callback,
            information=information,
            workers=workers,
        )
        source.to(device)
        learner: Learner = kind.Learner(run.learner_options, source, seed=run.seed, device=device)

    @cache
    def held() -> HeldOut:
        with concerning(", ".join(run.scenarios)), _ended_by_ctrl_c():
            return held_out(
                scenarios,
                run.held_out,
                horizon=run.source.horizon,
                true_rates=run.held_out_rates == "true",
                price_steps=run.source.price_steps,
                callback=callback,
                information=information,
                workers=workers,
            ).to(device)

    if at_once:
        held()
    return learner, lambda learner: measured(learner.policy(held().values), held())


def _newest(run: RunConfig, folder: Path, resume: bool) -> Checkpoint | None:
    """Return the newest state in the folder if the run is to go on from it.

    Raises
    ------
    FormatError
        The state is bad.
    ValueError
        There is a state and `resume` is not set, or it is of another run.
    """
    headers = states(folder)
    if not headers:
        return None
    if not resume:
        raise ValueError(
            f"{folder}: holds a run already ({headers[-1].name}); "
            "resume it, or choose another folder"
        )
    state = read_checkpoint(headers[-1])
    for name, value in run.as_dict().items():
        if name not in _FREE and state.run.get(name) != value:
            raise ValueError(
                f"{headers[-1]}: was made with {name} = {state.run.get(name)!r}, not {value!r}"
            )
    if state.step > run.steps:
        raise ValueError(f"steps: {run.steps} is not allowed, {headers[-1]} has made {state.step}")
    return state


_FREE = ("steps", "keep", "patience", "tensorboard", "log_every", "checkpoint_every")
"""Options of a run that may change when it is resumed."""


def _named(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in metrics.items()}


def _note(best: _Best) -> str:
    return (
        f"held out: {best.last['delay']:.4g} s, {100 * best.last['gap']:.2f} % above the bound, "
        f"best {100 * best.metrics['gap']:.2f} %"
    )


def _device(name: str) -> torch.device:
    """Return a device that is there.

    Raises
    ------
    ValueError
        Unknown, or not there.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {name!r} is not allowed here: {reason}") from None
    return device


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt` at once, also where `_interruptible` notes it."""
    noting = signal.getsignal(signal.SIGINT)
    ignored = noting in (signal.SIG_IGN, None)
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, noting)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Say whether Ctrl-C was pressed; a second one raises `KeyboardInterrupt` at once."""
    signals: list[int] = []
    usual = signal.getsignal(signal.SIGINT)
    ignored = usual in (signal.SIG_IGN, None)  # as in the background, and it stays so
    if ignored or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: Any) -> None:
        signals.append(number)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(signals)
    finally:
        signal.signal(signal.SIGINT, usual)
