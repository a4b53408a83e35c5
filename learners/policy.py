"""A checkpoint as an ordinary online method: observe the slot, let the nodes decide, go on."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import ClassVar, cast

import torch

from finecast.learners.algorithms.apart_actors import ApartActors
from finecast.learners.learner import TrainedPolicy
from finecast.learners.registry import learner_kind
from finecast.learners.runs.checkpoints import POLICY, Checkpoint, read_checkpoint
from finecast.learners.world.beliefs import Beliefs, beliefs_in_slot
from finecast.learners.world.draws import check_areas, check_instance, slot_of
from finecast.learners.world.environment import SetValued, step
from finecast.problem.arrays import BoolArray, IntArray
from finecast.problem.files import FormatError
from finecast.problem.instance import Instance
from finecast.problem.shipped import find
from finecast.problem.solution import Solution
from finecast.solvers.deadline import Deadline
from finecast.solvers.heuristics.apart import Apart
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.rules import KeepRule, check_keep_rule
from finecast.solvers.information import Information
from finecast.solvers.online import Observation, Prior
from finecast.solvers.online_areas import solve_online
from finecast.solvers.result import Answer, Callback


@dataclass
class Learned:
    """A trained node policy on the observations of an online method.

    Attributes
    ----------
    nodes
        What every node does.
    horizon
        Coming slots in the expected tables, as in training.
    keep
        "joint": what is kept is chosen for all blocks and nodes at once, if the policy has values
        of node sets. "in-turn": as the nodes decide, which is how they were trained.
    seconds
        What every decision took so far: the expected tables of the slot, which other online methods
        need too, and the decision; rates excluded.
    """

    remembers_users: ClassVar[bool] = True
    """It holds things by user: where an area gets new users, it begins anew."""

    nodes: TrainedPolicy
    horizon: int = 3
    keep: KeepRule = "joint"
    seconds: list[tuple[float, float]] = field(default_factory=list)
    notes: tuple[str, ...] = field(default=(), init=False)
    _rule: Apart | None = field(default=None, init=False, repr=False)

    def place(self, prior: Prior) -> BoolArray:
        """Place greedily for the expected delay of slot 0, as in training."""
        self.notes = ()
        if isinstance(self.nodes, ApartActors):  # their beliefs are those of the rule
            information = cast("Information", self.nodes.information)
            self._rule = Apart(information=information)
            return self._rule.place(prior)
        return greedy_by_popularity(prior, 1)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Let the nodes decide what to pull and what to keep."""
        began = time.perf_counter()
        slot = slot_of(observation, horizon=self.horizon)
        if self._rule is not None:
            slot = replace(slot, beliefs=self._beliefs(observation, cache))
            self.notes = self._rule.notes
        held = torch.from_numpy(cache)[None]
        known = time.perf_counter()
        with torch.inference_mode():
            delivery, keep = step(
                slot,
                held,
                self.nodes,
                in_turn=self.nodes.in_turn,
                rounds=self.nodes.rounds,
                joint="exact" if self.keep == "joint" else "",
            )
        self.seconds.append((known - began, time.perf_counter() - known))
        return delivery.source[0].numpy(), keep[0].numpy()

    def _beliefs(self, observation: Observation, cache: BoolArray) -> Beliefs:
        """Return what the nodes believe; what a node holds after the delivery is not part of it."""
        assert self._rule is not None
        common, each = self._rule.look(observation, cache, cache)
        return beliefs_in_slot(common, each, self._rule.values_for(common))


def load_policy(checkpoint: str | Path) -> tuple[TrainedPolicy, Checkpoint]:
    """Return the policy of a checkpoint, and what is known of its training.

    Parameters
    ----------
    checkpoint
        The folder of a run (its best policy), a header in it, or the name of a shipped checkpoint.

    Raises
    ------
    FormatError
        It is missing, bad, of a newer version or of another architecture.
    """
    path = find(checkpoint, "checkpoint")
    header = path / f"{POLICY}.json" if path.is_dir() else path
    saved = read_checkpoint(header)
    try:
        kind = learner_kind(saved.learner)
        information = str(saved.options.get("information", "full"))
        options = kind.config(saved.options, information)
        policy: TrainedPolicy = kind.load(information).trained(options, saved.tensors)
    except ValueError as error:
        raise FormatError(header, str(error)) from None
    return policy, saved


def solve_policy(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    checkpoint: str = "",
    keep: KeepRule = "joint",
    information: str = "",
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Let a trained policy decide, slot by slot.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`; there is nothing to stop early or to start from.
    checkpoint
        Folder of a training run, or the name of a shipped checkpoint, such as "dcg".
    keep
        "joint": what is kept is chosen for all blocks and nodes at once, from the values of node
        sets of dcg, vdn, qmix and hindsight. Actors (maasn-da, and all that PPO trains) have no
        such values and decide as they were trained. "in-turn": every policy decides as it was
        trained.
    information
        What the nodes see, "full", "delayed" or "local": as the checkpoint was trained, which an
        empty text takes.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.prepared.prepare`.

    Raises
    ------
    ValueError
        No checkpoint is named, it does not fit, the keep rule is unknown, or the instance is not of
        the sort that learners serve (`finecast.learners.world.draws.check_instance`).
    """
    if not checkpoint:
        raise ValueError(
            "option checkpoint: is empty, must be the folder of a training run; "
            "see `finecast train --help`"
        )
    check_keep_rule(keep)
    if instance.area_count == 1:
        check_instance(instance, "instance")
    else:
        check_areas(instance, "instance")
    policy, trained = load_policy(checkpoint)
    seen = str(trained.options.get("information", "full"))
    if information not in ("", seen):
        raise ValueError(
            f"option information: {information!r} is not allowed with checkpoint {checkpoint!r}, "
            f"must be {seen!r}, for which it was trained"
        )
    horizon = int(trained.run.get("source", {}).get("horizon", 3))
    seconds: list[tuple[float, float]] = []

    def make() -> Learned:
        return Learned(copy.deepcopy(policy), horizon, keep, seconds)  # nodes may remember

    deadline = Deadline.after(time_limit)
    answer = solve_online(
        make,
        "policy",
        instance,
        deadline=deadline,
        seed=seed,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
    )
    kept = "jointly" if keep == "joint" and isinstance(policy, SetValued) else "by its own rule"
    time_taken = _decision_time(seconds)
    note = (
        f"{trained.learner}, {trained.step} steps, information {seen}, keeps {kept}: {time_taken}"
    )
    return replace(
        answer,
        notes=(*answer.notes, note),
        train_s=float(trained.train_s),
        cut=tuple(deadline.cut),
    )


def _decision_time(seconds: list[tuple[float, float]]) -> str:
    if not seconds:
        return "no decision was made"
    tables, decision = (1e3 * median(part) for part in zip(*seconds, strict=True))
    return (
        f"a decision took {decision:.3g} ms a slot (median), "
        f"the expected tables before it {tables:.3g} ms"
    )
