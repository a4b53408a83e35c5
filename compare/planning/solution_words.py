"""A solution of an instance in plain words: what is stored, what moves, what users wait."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from finecast.compare.planning.words import gb, s
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.library import coarse_grained
from finecast.problem.solution import Solution

MODELS_NAMED = 4
"""Models of a site that a line names."""


def solution_sentences(instance: Instance, solution: Solution) -> list[str]:
    """Return what a solution does, in a few sentences; the first says what users wait.

    Parameters
    ----------
    instance
        The problem.
    solution
        Decisions of its shape.

    Raises
    ------
    ValueError
        The solution has another shape than the instance.
    """
    found = evaluate(instance, solution)
    if not found.feasible:
        return [f"The plan breaks a rule: {found.violations[0]}."]
    if "coarse" in solution.restrict.split(","):
        instance = dataclasses.replace(instance, library=coarse_grained(instance.library))
    said = []
    if math.isnan(found.mean_completion):
        said.append("Nobody requests anything.")
    else:
        last = float(found.slot_delay.mean())
        said.append(
            f"A user waits {s(found.mean_completion)} in the mean and 95 of 100 no longer than "
            f"{s(found.p95_completion)}; a slot takes {s(last)} until its last user is served."
        )
    if not math.isnan(found.in_time_ratio):
        said.append(f"{100 * found.in_time_ratio:.0f} % of the downloads end in time.")
    size, slots = instance.library.block_size, instance.slots
    stored = int((solution.cache[0] @ size).sum())
    room = int(instance.network.storage.sum())
    share = f", {100 * stored / room:.0f} % of the room" if room else ""
    said.append(f"When slot 0 begins, {gb(stored)} are stored at {instance.nodes} sites{share}.")
    if slots > 1:
        held = solution.cache.astype(np.int8)
        changed = float((np.diff(held, axis=0) != 0).sum())
        said.append(
            f"What is stored changes by {changed / (slots - 1):.3g} copies from slot to slot."
            if changed
            else "What is stored stays the same in all slots."
        )
    said.append(
        f"In a typical slot {gb(found.migrated_bytes / slots)} move between sites and "
        f"{gb(found.cloud_bytes / slots)} come from the cloud."
    )
    return said


def stored_rows(instance: Instance, solution: Solution) -> list[tuple[str, str]]:
    """Return what each site stores when slot 0 begins: its name, how full it is, which models.

    Parameters
    ----------
    instance
        The problem.
    solution
        Decisions of its shape.
    """
    library = instance.library
    if "coarse" in solution.restrict.split(","):
        library = coarse_grained(library)
    size = library.block_size
    names = instance.network.node_names or tuple(f"site {n}" for n in range(instance.nodes))
    rows = []
    for n, name in enumerate(names):
        held = solution.cache[0, n]
        room, stored = int(instance.network.storage[n]), int(size[held].sum())
        share = (library.model_blocks & held) @ size / library.model_size
        whole = [library.model_names[m] for m in np.flatnonzero(share >= 1.0)]
        some = int(((share > 0) & (share < 1.0)).sum())
        said = [f"{gb(stored)} of {gb(room)}"]
        if whole:
            more = len(whole) - MODELS_NAMED
            rest = f" and {more} more" if more > 0 else ""
            said.append(f"whole: {', '.join(whole[:MODELS_NAMED])}{rest}")
        if some:
            said.append(f"parts of {some} {'other ' if whole else ''}model{'s'[: some != 1]}")
        rows.append((name, "; ".join(said)))
    return rows
