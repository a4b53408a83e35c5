"""Methods by name: what each needs and gives, without importing it.

A third party registers a `Method` under the entry-point group `finecast.methods`.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, NoReturn

from finecast.solvers.extras import MissingExtra

ENTRY_POINT_GROUP = "finecast.methods"


Kind = Literal["function", "policy", "placement", "search", "programme"]

RATE_OPTIONS: dict[str, Any] = {"beamforming": "multicast", "restrict": (), "rate_cache": None}
"""Options of every method but those of kind `function`, which declare what they take:
`beamforming`, `restrict` and `rate_cache` as in `finecast.solvers.prepared.prepare`."""

MODEL_OPTIONS: dict[str, Any] = {"write": None, "beam_nodes": 400}
"""Options of the kinds `search` and `programme`: `write`, a file (.lp or .mps) for the placement
model at the rates of the answer; `beam_nodes`, boxes of arguments per message for proving beams
(`finecast.solvers.proven`), 0 for none."""

_GIVEN = {"instance", "problem", "library", "time_limit", "deadline", "gap", "seed", "start"}
_GIVEN |= {"callback"}
"""What every entry gets from `solve`, and what is thus no option of a method."""

_INTERNAL = {"patience", "units"}
"""What tests and benchmarks may turn, but users of a method may not."""

PATH_OPTIONS = ("rate_cache", "write")
"""Options that name a file or folder, or nothing."""


@dataclass(frozen=True)
class Method:
    """A registered method.

    Parameters
    ----------
    name
        What users call it.
    entry
        `module:name`, imported on first use. What it is depends on `kind`.
    setting
        `offline`: sees all slots; `online`: sees the past and the forecast alone.
    summary
        One line for people.
    kind
        `function`: the whole method. It takes an instance and the keywords `time_limit`, `gap`,
        `seed`, `start`, `callback`, plus its own options, and returns an `Answer`.
        `policy`: a class of `finecast.solvers.online.Policy`. Its fields are the options; a field
        `seed` gets the seed.
        `placement`: a function of a placement problem, the model library and the seed, plus its
        own options as keywords, that returns a `Placement`.
        `search`, `programme`: a function of a placement problem and the keywords `deadline`,
        `gap`, `seed`, `start`, `callback` that returns a `PlacementResult` whose lower bound holds
        for every placement. The bound of a search is the Lagrangian at its prices; a programme is
        solved once more at bounded rates.
    gives_bound, warm_starts, needs_training, uses_gpu
        Capabilities.
    areas
        It solves instances of several areas; without it they are refused.
    counts_work
        A limit of work ends it; nobody counts that of a foreign solver.
    extra
        The extra of finecast that installs what the method needs; empty where nothing is missing
        in a plain installation.
    reference
        Where the method comes from.
    given
        The code itself, in place of what `entry` names: of a method that is not registered
        (`finecast.solvers.own_methods`).
    """

    name: str
    entry: str
    setting: Literal["offline", "online"]
    summary: str
    kind: Kind = "function"
    gives_bound: bool = True
    counts_work: bool = True
    warm_starts: bool = False
    needs_training: bool = False
    uses_gpu: bool = False
    areas: bool = False
    extra: str = ""
    reference: str = ""
    given: Any = None

    def load(self) -> Any:
        """Import what `entry` names.

        Raises
        ------
        MissingExtra
            The packages of `extra` are not installed.
        ValueError
            It cannot be imported, as may be with that of a plug-in.
        """
        if self.given is not None:
            return self.given
        try:
            module, name = self.entry.split(":")
            return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if self.extra:
                raise MissingExtra(f"method {self.name!r}", self.extra) from error
            self._unusable(error)
        except (Exception, SystemExit) as error:
            self._unusable(error)

    @property
    def installed(self) -> bool:
        """Whether the packages of `extra` are there."""
        if not self.extra:
            return True
        try:
            self.load()
        except MissingExtra:
            return False
        return True

    def _unusable(self, error: BaseException) -> NoReturn:
        """Raise what stopped the import: as it is for our own methods, in one line for others."""
        if self in BUILT_IN:
            raise error
        raise ValueError(
            f"method {self.name!r}: {self.entry!r} cannot be imported "
            f"({type(error).__name__}: {error})"
        ) from None

    def own_options(self) -> dict[str, Any]:
        """Return the options that `entry` declares, and their defaults."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(self.load()).parameters.items()
            if name not in _GIVEN | _INTERNAL
        }

    def options(self) -> dict[str, Any]:
        """Return all options of the method and their defaults."""
        if self.kind == "function":
            return self.own_options()
        model = MODEL_OPTIONS if self.kind in ("search", "programme") else {}
        return {**self.own_options(), **RATE_OPTIONS, **model}


BUILT_IN = (
    Method(
        "lagrangian",
        "finecast.solvers.placement.exact.with_proof:place_with_proof",
        "offline",
        "storage prices, path columns and priced best responses; proves small ones; the default",
        "search",
        warm_starts=True,
        areas=True,
        reference="Lagrangian relaxation and Dantzig-Wolfe columns over paths of cached sets",
    ),
    Method(
        "exact",
        "finecast.solvers.placement.exact.state_flow:place_by_state_flow",
        "offline",
        "certified tree on small instances, else the state-flow MILP by HiGHS",
        "programme",
        warm_starts=True,
        reference="Huangfu and Hall, Math. Prog. Comp. 10 (2018) for HiGHS",
    ),
    Method(
        "cp-sat",
        "finecast.solvers.placement.exact.by_cp_sat:place_by_cp_sat",
        "offline",
        "the model of exact by CP-SAT; for few large blocks over several slots",
        "programme",
        warm_starts=True,
        counts_work=False,
        extra="cp-sat",
        reference="Perron and Didier, CP-SAT, OR-Tools",
    ),
    Method(
        "milp",
        "finecast.solvers.placement.exact.by_pyomo:place_by_milp",
        "offline",
        "the model of the formulation in Pyomo, solved by HiGHS; a slow, readable check",
        "programme",
        warm_starts=True,
        counts_work=False,
        reference="Bynum et al., Pyomo: Optimization Modeling in Python, 3rd ed., Springer 2021",
    ),
    Method(
        "lp",
        "finecast.solvers.placement.exact.by_pyomo:place_by_lp",
        "offline",
        "the linear relaxation of milp, rounded",
        "programme",
        warm_starts=True,
        reference="as milp",
    ),
    Method(
        "greedy",
        "finecast.solvers.heuristics.greedy:place_greedily",
        "offline",
        "caches where delay saved per byte is largest; knows all requests",
        "placement",
        areas=True,
        reference="greedy for a sum of monotone savings under knapsack constraints",
    ),
    Method(
        "whole-model",
        "finecast.solvers.heuristics.whole_model:whole_model_placement",
        "offline",
        "caches whole models by delay saved per byte; knows all requests",
        "placement",
        reference="greedy under knapsack constraints; the usual coarse-grained caching",
    ),
    Method(
        "greedy-online",
        "finecast.solvers.heuristics.greedy_online:GreedyOnline",
        "online",
        "the greedy on popularity alone; static",
        "policy",
        areas=True,
        reference="as greedy",
    ),
    Method(
        "trimcaching-gen",
        "finecast.solvers.heuristics.trimcaching:TrimCachingGen",
        "online",
        "whole models by expected hits, shared blocks stored once; static",
        "policy",
        areas=True,
        reference="Qu et al., TrimCaching, ICDCS 2024, arXiv 2405.03990, 2404.14204",
    ),
    Method(
        "trimcaching-spec",
        "finecast.solvers.heuristics.trimcaching:TrimCachingSpec",
        "online",
        "the same, nodes in turn by dynamic programme; (1 - eps)/2 of the best hits; static",
        "policy",
        areas=True,
        reference="Qu et al., TrimCaching, ICDCS 2024, arXiv 2405.03990, 2404.14204",
    ),
    Method(
        "popular",
        "finecast.solvers.heuristics.popularity:Popular",
        "online",
        "the most popular blocks (or models) at every node; static",
        "policy",
        areas=True,
        reference="classical",
    ),
    Method(
        "random",
        "finecast.solvers.heuristics.random:RandomBlocks",
        "online",
        "random blocks at every node; static",
        "policy",
        areas=True,
        reference="classical",
    ),
    Method(
        "lru",
        "finecast.solvers.heuristics.replacement:LeastRecentlyUsed",
        "online",
        "every node keeps the blocks used last",
        "policy",
        areas=True,
        reference="classical",
    ),
    Method(
        "lfu",
        "finecast.solvers.heuristics.replacement:LeastFrequentlyUsed",
        "online",
        "every node keeps the blocks used most often, older uses counting less",
        "policy",
        areas=True,
        reference="classical",
    ),
    Method(
        "own-savings",
        "finecast.solvers.heuristics.own_savings:OwnSavings",
        "online",
        "every node keeps the copies that saved most given the others'; no forecast",
        "policy",
        areas=True,
        reference="LFU with the delay that a copy saved in place of its count",
    ),
    Method(
        "qlru-delta",
        "finecast.solvers.heuristics.qlru:QLruDelta",
        "online",
        "LRU lists that move by chance, in proportion to the seconds a copy saves",
        "policy",
        areas=True,
        reference="our reading of Neglia et al., IEEE/ACM ToN 29 (2021)",
    ),
    Method(
        "qlru-hs",
        "finecast.solvers.heuristics.qlru:QLruHS",
        "online",
        "the same by seconds per byte, for blocks of different sizes",
        "policy",
        areas=True,
        reference="our reading of Ricardo, Neglia and Spyropoulos, GLOBECOM 2021",
    ),
    Method(
        "bsca",
        "finecast.solvers.heuristics.bsca:BipartiteSubgradient",
        "online",
        "online gradient ascent on fractional caches, rounded; no forecast",
        "policy",
        areas=True,
        reference="Paschos, Destounis and Iosifidis, IEEE/ACM ToN 2020, arXiv 2001.06351",
    ),
    Method(
        "ftpl",
        "finecast.solvers.heuristics.ftpl:PerturbedLeader",
        "online",
        "follows the perturbed leader, by a linear programme and pipage rounding; no forecast",
        "policy",
        areas=True,
        reference="Paria and Sinha, LeadCache, NeurIPS 2021, arXiv 2009.08228",
    ),
    Method(
        "oftrl",
        "finecast.solvers.heuristics.oftrl:OptimisticLeader",
        "online",
        "follows the regularised leader, with the forecast as a hint; rounded",
        "policy",
        areas=True,
        reference="Mhaisen et al., arXiv 2204.09345, 2208.06414",
    ),
    Method(
        "rolling",
        "finecast.solvers.heuristics.rolling:Rolling",
        "online",
        "keeps what saves most expected delay in the next slot, nodes in turn",
        "policy",
        areas=True,
        reference="myopic control; best response in turn",
    ),
    Method(
        "mpc",
        "finecast.solvers.heuristics.mpc:ModelPredictive",
        "online",
        "dynamic programme over the expected slots to come, solved anew in every slot",
        "policy",
        areas=True,
        reference="receding horizon control with a Lagrangian of the storage",
    ),
    Method(
        "apart",
        "finecast.solvers.heuristics.apart:Apart",
        "online",
        "every node decides for itself at once, on what it sees",
        "policy",
        areas=True,
        reference="own; information structures: Witsenhausen, SIAM J. Control 9 (1971)",
    ),
    Method(
        "programme",
        "finecast.solvers.heuristics.programme:Programme",
        "online",
        "stochastic programme over what every user asked last, storage of all nodes shared jointly",
        "policy",
        areas=True,
        reference="Hawkins 2003; Adelman and Mersereau, Oper. Res. 56 (2008): weakly coupled",
    ),
    Method(
        "policy",
        "finecast.learners.policy:solve_policy",
        "online",
        "a trained policy: --set checkpoint=FOLDER of `finecast train`",
        needs_training=True,
        areas=True,
        reference="see `finecast train --list`",
    ),
)


@cache
def methods() -> dict[str, Method]:
    """Return all methods by name, our own and those of installed plug-ins.

    A plug-in that cannot be used is skipped with a warning: it raises or exits when it is
    imported, is no `Method`, or has a name that is taken.
    """
    table = {method.name: method for method in BUILT_IN}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            method = point.load()
        except (Exception, SystemExit) as error:  # whatever others wrote
            what = f"it cannot be imported ({type(error).__name__}: {error})"
            _skip(point, what)
            continue
        if not isinstance(method, Method):
            _skip(point, "it is not a Method")
        elif method.name in table:
            _skip(point, f"the name {method.name!r} is taken")
        else:
            table[method.name] = method
    return table


def _skip(point: EntryPoint, why: str) -> None:
    warnings.warn(f"plug-in {point.name!r} of {point.value!r} is skipped: {why}", stacklevel=3)


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
