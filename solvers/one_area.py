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
