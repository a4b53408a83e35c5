"""Methods by name: what each needs and gives, without importing it.

A third party registers a `Method` under the entry-point group `finecast.methods`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from finecast.solvers.result import Answer

ENTRY_POINT_GROUP = "finecast.methods"


@dataclass(frozen=True)
class Method:
    """A registered method.

    Parameters
    ----------
    name
        What users call it.
    entry
        `module:function`, imported on first use. The function takes an instance and the keywords
        `time_limit`, `gap`, `seed`, `start`, `callback`, plus its own options, and returns an
        `Answer`.
    setting
        `offline`: sees all slots; `online`: sees the past and the forecast alone.
    summary
        One line for people.
    gives_bound, warm_starts, needs_training, uses_gpu
        Capabilities.
    reference
        Where the method comes from.
    """

    name: str
    entry: str
    setting: Literal["offline", "online"]
    summary: str
    gives_bound: bool = True
    warm_starts: bool = False
    needs_training: bool = False
    uses_gpu: bool = False
    reference: str = ""

    def load(self) -> Callable[..., Answer]:
        """Import the function."""
        module, function = self.entry.split(":")
        loaded: Callable[..., Answer] = getattr(import_module(module), function)
        return loaded

    def options(self) -> dict[str, Any]:
        """Return the method's own options and their defaults."""
        common = {"instance", "time_limit", "gap", "seed", "start", "callback"}
        return {
            name: parameter.default
            for name, parameter in inspect.signature(self.load()).parameters.items()
            if name not in common
        }


BUILT_IN = (
    Method(
        "lagrangian",
        "finecast.solvers.offline:solve_lagrangian",
        "offline",
        "storage prices, path columns and priced best responses; the default",
        warm_starts=True,
        reference="Lagrangian relaxation and Dantzig-Wolfe columns over paths of cached sets",
    ),
    Method(
        "exact",
        "finecast.solvers.offline:solve_exact",
        "offline",
        "state-flow MILP by HiGHS, to a proof on small instances",
        warm_starts=True,
        reference="Huangfu and Hall, Math. Prog. Comp. 10 (2018) for HiGHS",
    ),
    Method(
        "milp",
        "finecast.solvers.reference:solve_milp",
        "offline",
        "the model of the formulation in Pyomo, solved by HiGHS; a slow, readable check",
        warm_starts=True,
        reference="Bynum et al., Pyomo: Optimization Modeling in Python, 3rd ed., Springer 2021",
    ),
    Method(
        "lp",
        "finecast.solvers.reference:solve_lp",
        "offline",
        "the linear relaxation of milp, rounded",
        warm_starts=True,
        reference="as milp",
    ),
    Method(
        "greedy",
        "finecast.solvers.joint:solve_greedy",
        "offline",
        "caches where delay saved per byte is largest; knows all requests",
        reference="greedy for a sum of monotone savings under knapsack constraints",
    ),
    Method(
        "whole-model",
        "finecast.solvers.heuristics.whole_model:solve_whole_model",
        "offline",
        "caches whole models by delay saved per byte; knows all requests",
        reference="greedy under knapsack constraints; the usual coarse-grained caching",
    ),
    Method(
        "greedy-online",
        "finecast.solvers.heuristics.greedy_online:solve_greedy_online",
        "online",
        "the greedy on popularity alone; static",
        reference="as greedy",
    ),
    Method(
        "trimcaching-gen",
        "finecast.solvers.heuristics.trimcaching:solve_trimcaching_gen",
        "online",
        "whole models by expected hits, shared blocks stored once; static",
        reference="Qu et al., TrimCaching, ICDCS 2024, arXiv 2405.03990, 2404.14204",
    ),
    Method(
        "trimcaching-spec",
        "finecast.solvers.heuristics.trimcaching:solve_trimcaching_spec",
        "online",
        "the same, nodes in turn by dynamic programme; (1 - eps)/2 of the best hits; static",
        reference="Qu et al., TrimCaching, ICDCS 2024, arXiv 2405.03990, 2404.14204",
    ),
    Method(
        "popular",
        "finecast.solvers.heuristics.popularity:solve_popular",
        "online",
        "the most popular blocks (or models) at every node; static",
        reference="classical",
    ),
    Method(
        "random",
        "finecast.solvers.heuristics.random:solve_random",
        "online",
        "random blocks at every node; static",
        reference="classical",
    ),
    Method(
        "lru",
        "finecast.solvers.heuristics.replacement:solve_lru",
        "online",
        "every node keeps the blocks used last",
        reference="classical",
    ),
    Method(
        "lfu",
        "finecast.solvers.heuristics.replacement:solve_lfu",
        "online",
        "every node keeps the blocks used most often, older uses counting less",
        reference="classical",
    ),
    Method(
        "rolling",
        "finecast.solvers.heuristics.rolling:solve_rolling",
        "online",
        "keeps what saves most expected delay in the next slot, nodes in turn",
        reference="myopic control; best response in turn",
    ),
    Method(
        "mpc",
        "finecast.solvers.heuristics.mpc:solve_mpc",
        "online",
        "dynamic programme over the expected slots to come, solved anew in every slot",
        reference="receding horizon control with a Lagrangian of the storage",
    ),
    Method(
        "policy",
        "finecast.learners.policy:solve_policy",
        "online",
        "a trained policy: --set checkpoint=FOLDER of `finecast train`",
        needs_training=True,
        reference="see `finecast train --list`",
    ),
)


@cache
def methods() -> dict[str, Method]:
    """Return all methods by name, our own and those of installed plug-ins.

    Raises
    ------
    ValueError
        A plug-in's name is taken, or its entry point is not a `Method`.
    """
    table = {method.name: method for method in BUILT_IN}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        method = point.load()
        if not isinstance(method, Method):
            raise ValueError(f"entry point {point.name!r} of {point.value!r} is not a Method")
        if method.name in table:
            raise ValueError(f"entry point {point.name!r}: the name {method.name!r} is taken")
        table[method.name] = method
    return table


def method_of(name: str) -> Method:
    """Return a method by name.

    Raises
    ------
    ValueError
        There is no such method; the nearest name is suggested.
    """
    table = methods()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known methods: {', '.join(table)}"
        raise ValueError(f"method: {name!r} is unknown; {hint}")
    return table[name]
