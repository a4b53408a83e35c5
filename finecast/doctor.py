"""What finecast runs on, and whether it works here: a self-test of seconds that ends in a proof."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

EXTRAS = {
    "cp-sat": "ortools",
    "dask": "distributed",
    "matlab": "h5py",
    "pettingzoo": "pettingzoo",
    "tensorboard": "tensorboard",
    "trainers": "torchrl",
}
"""A module of every optional extra."""

OPTIMUM_TOLERANCE = 1e-4
"""Relative difference to the known optimum that the self-test allows."""

TINY_OPTIMUM_S = 0.094676
"""Optimal delay of the shipped scenario `tiny`, seed 0, s: by enumeration of all decisions."""


@dataclass(frozen=True)
class Check:
    """One part of the self-test.

    Attributes
    ----------
    name
        What was tried.
    passed
        Whether it did what it should.
    said
        What was found.
    """

    name: str
    passed: bool
    said: str


def surroundings() -> dict[str, Any]:
    """Return machine, threads, versions, and which extras are installed."""
    from finecast.compare.runs.machine import machine
    from finecast.solvers.solve import versions

    threads = {
        name: os.environ[name]
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        if name in os.environ
    }
    return {
        **machine(),
        "thread_limits": threads,
        "versions": versions(),
        "extras": {name: find_spec(module) is not None for name, module in EXTRAS.items()},
        "gpu": _gpu(),
    }


def _gpu() -> str:
    """Return the name of the first GPU that torch sees; empty without one."""
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else ""


def self_test() -> Iterator[Check]:
    """Solve, judge, prove and read back small instances; yield a check as soon as it is done.

    The optimum is known by enumeration, and the beams are compared with a closed form.
    """
    for name, run in (
        ("a proof on tiny", _proof),
        ("beams against their closed form", _beams),
        ("an online method", _online),
        ("files", _files),
    ):
        yield _checked(name, run)


def _checked(name: str, run: Callable[[], tuple[bool, str]]) -> Check:
    try:
        passed, said = run()
    except Exception as error:  # whatever does not work here is what the test is to say
        return Check(name, False, f"{type(error).__name__}: {error}")
    return Check(name, passed, said)


def _proof() -> tuple[bool, str]:
    import finecast

    result = finecast.solve(finecast.read_scenario("tiny").generate(0), time_limit=30)
    near = abs(result.delay / TINY_OPTIMUM_S - 1.0) <= OPTIMUM_TOLERANCE
    proven = result.termination == "optimal" and result.bound_kind == "certified"
    said = (
        f"delay {result.delay:.6g} s, bound {result.lower_bound:.6g} s ({result.bound_kind}), "
        f"known optimum {TINY_OPTIMUM_S:.6g} s, in {result.wall_s:.1f} s"
    )
    return near and proven, said


def _beams() -> tuple[bool, str]:
    """Serve one user from one node: the rate has the closed form B log2(1 + P |h|^2 / sigma^2)."""
    import numpy as np

    import finecast

    changes = {"nodes.count": 1, "users.count": 1, "channel.error": 0.0}
    instance = finecast.read_scenario("tiny").with_(changes).generate(0)
    network = instance.network
    gain = float(np.linalg.norm(instance.channel_estimate[0, 0, 0]) ** 2)
    efficiency = np.log2(1.0 + network.power[0] * gain / network.noise_power)
    rate = network.bandwidth * min(efficiency, network.max_spectral_efficiency)
    solution = finecast.solve(instance, "greedy").solution
    if solution is None:
        return False, "no plan"
    found = max((float(b.rate.max()) for b in solution.broadcasts if len(b.rate)), default=0.0)
    return abs(found / rate - 1.0) < 1e-6, f"{found / 1e6:.6g} Mbit/s, closed form {rate / 1e6:.6g}"


def _online() -> tuple[bool, str]:
    import finecast

    instance = finecast.read_scenario("tiny").with_({"slots": 3}).generate(0)
    result = finecast.solve(instance, "rolling")
    feasible = result.evaluation is not None and result.evaluation.feasible
    return feasible and result.delay >= result.lower_bound, f"rolling: gap {100 * result.gap:.2f} %"


def _files() -> tuple[bool, str]:
    import tempfile
    from pathlib import Path

    import finecast

    instance = finecast.read_scenario("tiny").generate(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        written = finecast.write_instance(path, instance)
        same = finecast.read_instance(path).content_hash == instance.content_hash
        return same, f"an instance of {path.stat().st_size} bytes, hash {written[:12]}"
