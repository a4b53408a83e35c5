"""Methods that are not registered: a user's own function, class or object."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finecast.problem.arrays import checked
from finecast.solvers.registry import Method, method_of

if TYPE_CHECKING:
    from finecast.solvers.placement.problem import Placement, PlacementProblem

NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""How code is named: `module:name`."""

PASSED = ("problem", "library", "seed")
"""What a placement function is given, by the names of its first parameters."""


def any_method(given: Any) -> Method:
    """Return a registered method by name, or a user's own.

    Parameters
    ----------
    given
        A registered name. Or `module:name` of code that can be imported from the current folder, or
        the code itself: a function from a placement problem to a placement, or a class or object
        with the functions `place` and `act` of `finecast.solvers.online.Policy`.

    Raises
    ------
    ValueError
        An unknown name, or code that is neither.
    """
    if isinstance(given, str):
        return named_method(given) if NAMED.fullmatch(given) else method_of(given)
    name = getattr(given, "__name__", type(given).__name__)
    return own_method(given, name)


def named_method(name: str) -> Method:
    """Return the method in `module:name`; the module is looked for in the current folder too.

    Raises
    ------
    ValueError
        It cannot be imported, or is no method.
    """
    return own_method(_named(name), name)


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever others wrote
        raise ValueError(
            f"method: {name!r} cannot be imported ({type(error).__name__}: {error})"
        ) from None
    return found


def source_digest(name: str) -> str:
    """Return a hash of the file that `module:name` stands in; empty for registered methods.

    An edited method is another one: its rows do not stand for the old ones.
    """
    if not NAMED.fullmatch(name):
        return ""
    _named(name)
    file = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""


def own_method(given: Any, name: str) -> Method:
    """Return a method that runs a user's function, class or object.

    Raises
    ------
    ValueError
        It is none of them.
    """
    policy = all(callable(getattr(given, part, None)) for part in ("place", "act"))
    summary = (inspect.getdoc(given) or "a method of your own").splitlines()[0]
    if policy:
        make = given if inspect.isclass(given) else functools.partial(copy.deepcopy, given)
        return Method(name, name, "online", summary, "policy", given=make)
    if callable(given) and not inspect.isclass(given):
        return Method(name, name, "offline", summary, "placement", given=placing(given, name))
    raise ValueError(
        f"method: {name!r} is not allowed, must be a function of a placement problem, or a class "
        "with the functions place and act"
    )


def placing(place: Callable[..., Any], name: str) -> Callable[..., Placement]:
    """Return a function (problem, library, seed, **options) that calls a user's own.

    Parameters
    ----------
    place
        Takes the first one to three of `PASSED` by position, and options as keywords. It returns a
        `Placement`, or (N, J) bool: what every node caches in all slots. The migrations of every
        slot are then the best ones.
    name
        What messages call it.

    Raises
    ------
    ValueError
        It has no or too many parameters without a default.
    """
    parameters = inspect.signature(place).parameters.values()
    plain = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if not 1 <= len(plain) <= len(PASSED):
        raise ValueError(
            f"method: {name!r} has {len(plain)} parameters without a default, expected 1 to 3: "
            f"{', '.join(PASSED)}"
        )

    def placed(problem: PlacementProblem, library: Any, seed: int, **options: Any) -> Placement:
        # Placing takes scipy and more, which who only lists methods does not need.
        from finecast.solvers.node_set_tables import node_sets
        from finecast.solvers.placement.greedy import static_placement
        from finecast.solvers.placement.problem import Placement

        found = place(*(problem, library, seed)[: len(plain)], **options)
        if isinstance(found, Placement):
            return found
        shape = (problem.nodes, problem.blocks)
        held = checked(f"what {name} returned", np.asarray(found), "bool", shape)
        return static_placement(problem, node_sets(held))

    # Its own options, and nothing that is passed by position.
    passed = list(inspect.signature(placed).parameters.values())[:3]
    options = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters if p not in plain]
    placed.__signature__ = inspect.Signature([*passed, *options])  # type: ignore[attr-defined]
    placed.__doc__ = place.__doc__
    return placed
