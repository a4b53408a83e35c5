"""A placement that another solver found in our model, back as a solution for the judge.

The model is what `write=` writes (`finecast.solvers.placement.exact.pyomo_model`): only x, receive
and send are read from the solver's file, rounded, and checked. Beams and rates are computed anew,
and nothing else of what the solver says is believed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.problem.files import FormatError
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.delivery import deliver
from finecast.solvers.placement.problem import Placement
from finecast.solvers.polish import polished
from finecast.solvers.prepared import prepare
from finecast.solvers.result import Progress
from finecast.solvers.sol_text import SolverValues, read_sol

TOLERANCE = 1e-4
"""How far from 0 or 1 a solver may leave a choice."""

_NAME = re.compile(r"([A-Za-z_]+)\(([0-9_]{1,80})\)")
_INDICES = {"x": 3, "receive": 4, "send": 3}
_TIMES = {"tau": 2, "delay": 1, "end_migration": 2, "end_broadcast": 2, "before": 3}
"""Variables that are read, and those that follow from them, with how many indices each has."""


def solution_from_sol(
    instance: Instance,
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    callback: Callable[[Progress], None] | None = None,
) -> tuple[Solution, SolverValues]:
    """Return the solution of a solver's file, with beams of its own, and what the file says.

    Parameters
    ----------
    instance
        The instance whose model was solved.
    path
        The solver's file; see `finecast.solvers.sol_text`.
    seed
        Of the beams' random starts.
    callback
        Receives the progress of the rates.

    Raises
    ------
    FormatError
        The file is damaged, of another model, or has a choice that is neither 0 nor 1.
    ValueError
        The instance has several areas.
    """
    if instance.area_count > 1:
        raise ValueError(f"areas: {instance.area_count} are not allowed, models are of one area")
    said = read_sol(path)
    placement = _placement(instance, path, said)
    prepared = prepare(instance, seed=seed, callback=callback)
    prepared, _ = polished(prepared, placement, seed=seed)
    solution = deliver(
        prepared.instance,
        placement,
        prepared.plans,
        prepared.rates,
        robust=prepared.robust,
        method=f"{said.solver} file",
    )
    return solution, said


def _placement(instance: Instance, path: str | os.PathLike[str], said: SolverValues) -> Placement:
    """Return the caches and sources that a file says."""
    shape = (instance.slots, instance.nodes, instance.blocks)
    x: IntArray = np.full(shape, -1 if said.complete else 0)
    source: IntArray = np.full(shape, -1)
    sent = np.zeros((instance.slots, instance.blocks), dtype=np.int64)
    needed, receives = instance.needed, 0
    for name, value in said.values.items():
        if name == "ONE_VAR_CONSTANT":
            continue
        kind, index = _variable(path, name)
        if kind in _TIMES:
            continue
        chosen = _choice(path, name, value)
        if kind == "x":
            t, n, j = index
            _check_range(path, name, (t, n, j), shape)
            x[t, n, j] = chosen
            continue
        t, j = index[:2]
        _check_range(path, name, (t, 0, j), shape)
        if not needed[t, j]:
            raise FormatError(path, f"{name}: nobody needs block {j} in slot {t} of this instance")
        if kind == "send":
            _check_range(path, name, (t, 0, j), shape)
            if not 1 <= index[2] < 1 << instance.nodes:
                raise FormatError(path, f"{name}: is of another model, {instance.nodes} nodes here")
            sent[t, j] += chosen
            continue
        receives += 1
        m, n = index[2:]
        if m > instance.nodes or n >= instance.nodes:
            raise FormatError(path, f"{name}: is of another model, {instance.nodes} nodes here")
        if chosen and source[t, n, j] >= 0:
            raise FormatError(path, f"{name}: node {n} receives block {j} twice in slot {t}")
        if chosen:
            source[t, n, j] = m

    # All that the model has must be there, or the file is cut or of another model.
    if (x < 0).any():
        t, n, j = np.argwhere(x < 0)[0].tolist()
        raise FormatError(path, f"has no x({t}_{n}_{j}): it is cut, or of another model")
    links = int((instance.network.backhaul_rate > 0).sum()) + instance.nodes
    if said.complete and receives != links * needed.sum():
        raise FormatError(
            path,
            f"has {receives} of {links * needed.sum()} variables receive: it is cut, or of another "
            "model",
        )
    wrong = np.argwhere((sent != 1) & needed)
    if len(wrong):
        t, j = wrong[0].tolist()
        raise FormatError(
            path,
            f"block {j} is sent {sent[t, j]} times in slot {t}, expected once: the file is cut, or "
            "of another model",
        )
    cache = x == 1
    return Placement(cache, np.where(cache, -1, source))


def _variable(path: str | os.PathLike[str], name: str) -> tuple[str, tuple[int, ...]]:
    """Return what a variable is, and its indices."""
    match = _NAME.fullmatch(name)
    known = {**_INDICES, **_TIMES}
    if match is not None and match[1] in known:
        words = match[2].split("_")
        if len(words) == known[match[1]] and all(word and len(word) <= 12 for word in words):
            return match[1], tuple(map(int, words))
    shown = name if len(name) <= 80 else f"{name[:80]}..."
    raise FormatError(path, f"{shown!r} is no variable of the model that write= writes")


def _check_range(
    path: str | os.PathLike[str], name: str, index: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    if any(i >= most for i, most in zip(index, shape, strict=True)):
        slots, nodes, blocks = shape
        raise FormatError(
            path,
            f"{name}: is of another model, this instance has {slots} slots, {nodes} nodes and "
            f"{blocks} blocks",
        )


def _choice(path: str | os.PathLike[str], name: str, value: float) -> int:
    if min(abs(value), abs(value - 1)) > TOLERANCE:
        raise FormatError(path, f"{name}: {value:g} is not allowed, must be 0 or 1")
    return round(value)
