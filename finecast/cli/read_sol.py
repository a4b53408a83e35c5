"""`finecast read-sol`: what another solver found in our model, judged."""

from __future__ import annotations

import sys

import click

from finecast.cli.common import (
    instance_for,
    json_option,
    output_file,
    print_json,
    print_table,
    progress_bar,
    say,
    set_option,
)


@click.command("read-sol")
@click.argument("instance")
@click.argument("file")
@click.option("-o", "--output", help="Solution file to write (.npz).")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="For a TOML scenario.")
@set_option
@json_option
def command(
    instance: str,
    file: str,
    output: str | None,
    seed: int,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Read FILE, the .sol of HiGHS, Gurobi, CPLEX or SCIP for the model of INSTANCE, and judge it.

    The model is what `finecast solve INSTANCE --method milp --set write=model.lp` writes. The file
    gives caches, migrations and senders; beams are computed anew. Exit code 1 if a rule is broken.
    """
    from finecast.problem.evaluation import evaluate
    from finecast.problem.solution import write_solution
    from finecast.solvers.solver_file import solution_from_sol

    target = None if output is None else output_file(output, [".npz"], holds="finecast-solution")
    problem = instance_for(instance, seed, settings)
    with progress_bar() as tell:
        solution, said = solution_from_sol(problem, file, seed=seed, callback=tell)
    judged = evaluate(problem, solution)
    described = {
        "solver": said.solver,
        "objective": said.objective,
        "delay": judged.delay,
        "feasible": judged.feasible,
        "violations": [str(violation) for violation in judged.violations],
    }
    if as_json:
        print_json(described)
    else:
        objective = "-" if said.objective is None else f"{said.objective:.7g} s"
        print_table(
            f"{file} on {problem.name or 'instance'}",
            [
                ("solver", said.solver),
                ("objective of the solver", objective),
                ("delay, judged", f"{judged.delay:.7g} s"),
                ("feasible", "yes" if judged.feasible else "no"),
                *(("violation", str(violation)) for violation in judged.violations),
            ],
        )
    if not judged.feasible:
        sys.exit(1)
    if target is not None:
        write_solution(target, solution)
        if not as_json:
            say(f"solution written to {target}")
