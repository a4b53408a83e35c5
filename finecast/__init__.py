"""finecast: FINE-grained caching and coordinated broadCASTing of AI models at the network edge.

The names below are imported on first use, so that `import finecast` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from problem.version import FINECAST_VERSION

if TYPE_CHECKING:
    from problem.evaluation import Evaluation, evaluate
    from problem.instance import Instance, read_instance, write_instance
    from problem.library import ModelLibrary, read_library, write_library
    from problem.scenario import Scenario, read_scenario
    from problem.solution import Broadcast, Solution, read_solution, write_solution
    from solvers.optimise import certified_lower_bound
    from solvers.registry import Method, methods
    from solvers.result import Progress, Result
    from solvers.solve import solve

__version__ = FINECAST_VERSION

_HOME = {
    "Broadcast": "problem.solution",
    "Evaluation": "problem.evaluation",
    "Instance": "problem.instance",
    "Method": "solvers.registry",
    "ModelLibrary": "problem.library",
    "Progress": "solvers.result",
    "Result": "solvers.result",
    "Scenario": "problem.scenario",
    "Solution": "problem.solution",
    "certified_lower_bound": "solvers.optimise",
    "evaluate": "problem.evaluation",
    "methods": "solvers.registry",
    "read_instance": "problem.instance",
    "read_library": "problem.library",
    "read_scenario": "problem.scenario",
    "read_solution": "problem.solution",
    "solve": "solvers.solve",
    "write_instance": "problem.instance",
    "write_library": "problem.library",
    "write_solution": "problem.solution",
}

__all__ = [
    "Broadcast",
    "Evaluation",
    "Instance",
    "Method",
    "ModelLibrary",
    "Progress",
    "Result",
    "Scenario",
    "Solution",
    "__version__",
    "certified_lower_bound",
    "evaluate",
    "methods",
    "read_instance",
    "read_library",
    "read_scenario",
    "read_solution",
    "solve",
    "write_instance",
    "write_library",
    "write_solution",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'finecast' has no attribute {name!r}")
