"""Beamforming methods by name, each for one message: (channel, error, power, seed) -> Multicast."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from solvers.beamforming.worst_case import Multicast

_ENTRY = {
    "sca": "solvers.beamforming.sca:solve_sca",
    "sdr": "solvers.beamforming.sdr:solve_sdr",
    "sprocedure": "solvers.beamforming.sprocedure:solve_sprocedure",
    "wmmse": "solvers.beamforming.wmmse:solve_wmmse_single",
    "matched": "solvers.beamforming.matched:solve_matched",
}

NAMES = tuple(_ENTRY)


def beamforming_method(name: str) -> Callable[..., Multicast]:
    """Return a method by name, imported on first use.

    Raises
    ------
    ValueError
        There is no such method.
    """
    if name not in _ENTRY:
        raise ValueError(f"beamforming: {name!r} is unknown, expected one of {', '.join(NAMES)}")
    module, function = _ENTRY[name].split(":")
    method: Callable[..., Multicast] = getattr(import_module(module), function)
    return method
