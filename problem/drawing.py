"""Pictures of instances and solutions, for the `plot` of their classes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

PICTURES = "finecast.pictures"
"""Who draws, found by its name when asked: nothing here depends on it or on matplotlib."""


def drawn(instance: Any, solution: Any, slot: int) -> Any:
    """Return `finecast.pictures.overview`: a figure of matplotlib, which notebooks show.

    Parameters
    ----------
    instance
        A `finecast.problem.instance.Instance`.
    solution
        A `finecast.problem.solution.Solution` of its shape, or None.
    slot
        Which slot.

    Raises
    ------
    ValueError
        There is no such slot, or the shapes differ.
    """
    return import_module(PICTURES).overview(instance, solution, slot)
