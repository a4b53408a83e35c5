"""finecast: FINE-grained caching and coordinated broadCASTing of AI models at the network edge.

The names below are imported on first use, so that `import finecast` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from finecast.problem.memory import refuse_little_memory
from finecast.problem.version import FINECAST_VERSION

if TYPE_CHECKING:
    from finecast.compare.planning.figures import NetworkPlan
    from finecast.compare.planning.plan import plan
    from finecast.compare.planning.write import write_plan
    from finecast.compare.report.figure_file import write_figure
    from finecast.compare.report.write import write_report
    from finecast.compare.runs.runner import run_suite
    from finecast.compare.runs.suite import Suite, read_suite
    from finecast.compare.runs.sweep import run_sweep
    from finecast.learners.train import train
    from finecast.problem.evaluation import Evaluation, evaluate
    from finecast.problem.instance import Instance, read_instance, write_instance
    from finecast.problem.library import ModelLibrary, read_library, write_library
    from finecast.problem.matlab import write_mat
    from finecast.problem.model_configs import library_from_configs
    from finecast.problem.scenario import Scenario, read_scenario
    from finecast.problem.solution import Broadcast, Solution, read_solution, write_solution
    from finecast.solvers.bounds import certified_lower_bound
    from finecast.solvers.online_bound import online_bound
    from finecast.solvers.registry import Method, methods
    from finecast.solvers.result import Progress, Result
    from finecast.solvers.solve import solve
    from finecast.solvers.solver_file import solution_from_sol

__version__ = FINECAST_VERSION

_HOME = {
    "Broadcast": "finecast.problem.solution",
    "Evaluation": "finecast.problem.evaluation",
    "Instance": "finecast.problem.instance",
    "Method": "finecast.solvers.registry",
    "ModelLibrary": "finecast.problem.library",
    "NetworkPlan": "finecast.compare.planning.figures",
    "Progress": "finecast.solvers.result",
    "Result": "finecast.solvers.result",
    "Scenario": "finecast.problem.scenario",
    "Solution": "finecast.problem.solution",
    "certified_lower_bound": "finecast.solvers.bounds",
    "Suite": "finecast.compare.runs.suite",
    "evaluate": "finecast.problem.evaluation",
    "library_from_configs": "finecast.problem.model_configs",
    "methods": "finecast.solvers.registry",
    "online_bound": "finecast.solvers.online_bound",
    "plan": "finecast.compare.planning.plan",
    "read_instance": "finecast.problem.instance",
    "read_library": "finecast.problem.library",
    "read_scenario": "finecast.problem.scenario",
    "read_solution": "finecast.problem.solution",
    "read_suite": "finecast.compare.runs.suite",
    "run_suite": "finecast.compare.runs.runner",
    "run_sweep": "finecast.compare.runs.sweep",
    "solution_from_sol": "finecast.solvers.solver_file",
    "solve": "finecast.solvers.solve",
    "train": "finecast.learners.train",
    "write_figure": "finecast.compare.report.figure_file",
    "write_instance": "finecast.problem.instance",
    "write_library": "finecast.problem.library",
    "write_mat": "finecast.problem.matlab",
    "write_plan": "finecast.compare.planning.write",
    "write_report": "finecast.compare.report.write",
    "write_solution": "finecast.problem.solution",
}

__all__ = [
    "Broadcast",
    "Evaluation",
    "Instance",
    "Method",
    "ModelLibrary",
    "NetworkPlan",
    "Progress",
    "Result",
    "Scenario",
    "Solution",
    "Suite",
    "__version__",
    "certified_lower_bound",
    "evaluate",
    "library_from_configs",
    "methods",
    "online_bound",
    "plan",
    "read_instance",
    "read_library",
    "read_scenario",
    "read_solution",
    "read_suite",
    "run_suite",
    "run_sweep",
    "solution_from_sol",
    "solve",
    "train",
    "write_figure",
    "write_instance",
    "write_library",
    "write_mat",
    "write_plan",
    "write_report",
    "write_solution",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        refuse_little_memory()
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'finecast' has no attribute {name!r}")
