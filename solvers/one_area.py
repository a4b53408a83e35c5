"""Methods and bounds for one area refuse an instance of several: their answer would be wrong."""

from __future__ import annotations

from finecast.problem.instance import Instance


def refuse_areas(instance: Instance, what: str) -> None:
    """Refuse an instance of several areas.

    Parameters
    ----------
    instance
        The problem.
    what
        What is for one area, for the message.

    Raises
    ------
    ValueError
        It has more than one area.
    """
    if instance.area_count > 1:
        raise ValueError(
            f"areas: the instance has {instance.area_count}, {what} is for one area "
            "(nodes.areas = 'none')"
        )


def check_for_areas(instance: Instance, workers: int, engine: str) -> None:
    """Refuse several workers for an instance of one area, which has no tasks for them.

    Raises
    ------
    ValueError
        Says what they are for.
    """
    if instance.area_count > 1 or (workers == 1 and engine == "local"):
        return
    what = f"workers: {workers}" if engine == "local" else f"engine: {engine!r}"
    raise ValueError(f"{what} is for instances of several areas, this one has one")
