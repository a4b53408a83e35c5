"""Solution files of other solvers: written by HiGHS, in the words of the others, and damaged."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from finecast.problem.evaluation import evaluate
from finecast.problem.files import FormatError
from finecast.problem.instance import Instance
from finecast.problem.scenario import read_scenario
from finecast.solvers.highs import QuietHighs
from finecast.solvers.sol_text import read_sol
from finecast.solvers.solve import solve
from finecast.solvers.solver_file import solution_from_sol


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Instance, Path]:
    """Write the model of an instance, let HiGHS alone solve it, and write its solution."""
    folder = tmp_path_factory.mktemp("sol")
    instance = read_scenario("tiny").generate(1)
    solve(instance, "milp", write=str(folder / "m.lp"))
    highs = QuietHighs()
    highs.readModel(str(folder / "m.lp"))
    highs.run()
    highs.writeSolution(str(folder / "m.sol"), 0)
    return instance, folder / "m.sol"


def in_words_of(solver: str, path: Path, *, zeros: bool) -> str:
    """Return the file of HiGHS as another solver writes it."""
    said = read_sol(path)
    values = {name: value for name, value in said.values.items() if zeros or value}
    if solver == "Gurobi":
        lines = [f"{name} {value:.16g}" for name, value in values.items()]
        head = f"# Solution for model placement\n# Objective value = {said.objective:.16e}\n"
        return head + "\n".join(lines) + "\n"
    if solver == "SCIP":
        lines = [f"{name:<50} {value:>20.15g} \t(obj:0)" for name, value in values.items()]
        head = (
            f"solution status: optimal solution found\nobjective value:    {said.objective:.15g}\n"
        )
        return head + "\n".join(lines) + "\n"
    lines = [
        f'  <variable name={quoteattr(name)} index="{i}" value="{value:.17g}"/>'
        for i, (name, value) in enumerate(values.items())
    ]
    return (
        '<?xml version = "1.0" encoding="UTF-8" standalone="yes"?>\n<CPLEXSolution version="1.2">\n'
        f' <header problemName="m.lp" objectiveValue="{said.objective:.17g}"/>\n <variables>\n'
        + "\n".join(lines)
        + "\n </variables>\n</CPLEXSolution>\n"
    )


@pytest.mark.parametrize("solver", ["HiGHS", "Gurobi", "CPLEX", "SCIP"])
def test_judged_delay_is_the_objective(
    solved: tuple[Instance, Path], tmp_path: Path, solver: str
) -> None:
    """What HiGHS found in the model comes back, and the judge finds its objective."""
    instance, path = solved
    if solver != "HiGHS":
        text = in_words_of(solver, path, zeros=solver != "SCIP")
        path = tmp_path / "other.sol"
        path.write_text(text)
    solution, said = solution_from_sol(instance, path)
    judged = evaluate(instance, solution)
    assert (said.solver, judged.feasible) == (solver, True)
    assert judged.delay == pytest.approx(said.objective, rel=1e-6)


def changed(path: Path, old: str, new: str, target: Path) -> Path:
    """Write a file with one text replaced."""
    text = path.read_text()
    assert old in text
    target.write_text(text.replace(old, new, 1))
    return target


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("x(0_0_0) ", "y(0_0_0) ", "'y(0_0_0)' is no variable of the model"),
        ("x(0_0_0) ", "x(0_0) ", "'x(0_0)' is no variable of the model"),
        ("x(0_0_0) ", "x(0_9_0) ", "x(0_9_0): is of another model, this instance has 1 slots"),
        ("x(0_0_0) ", "x(0_0_1) ", "x(0_0_1)' is there twice"),
        ("x(0_0_0) 0", "x(0_0_0) 0.5", "x(0_0_0): 0.5 is not allowed, must be 0 or 1"),
        ("x(0_0_0) 0", "x(0_0_0) nan", "has the value 'nan', expected a number"),
        ("x(0_0_0) 0", "x(0_0_0) inf", "has the value 'inf', expected a number"),
        ("x(0_0_0) 0", "x(0_0_0)", "expected a name and a value"),
        ("send(0_0_3) 1", "send(0_0_3) 0", "block 0 is sent 0 times in slot 0, expected once"),
        ("# Columns 52", "# Columns 50000", "is cut: has 52 of 50000 variables"),
        ("# Columns 52", "# Columns many", "expected '# Columns N'"),
        ("Model status", "model", "is no solution file of HiGHS, Gurobi, CPLEX (XML) or SCIP"),
    ],
)
def test_damaged_files(
    solved: tuple[Instance, Path], tmp_path: Path, old: str, new: str, message: str
) -> None:
    """Unknown names, choices that are none, and cut files: one line each."""
    instance, path = solved
    damaged = changed(path, old, new, tmp_path / "m.sol")
    with pytest.raises(FormatError) as refused:
        solution_from_sol(instance, damaged)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_cut_is_refused(solved: tuple[Instance, Path], tmp_path: Path) -> None:
    """A file that ends early is refused wherever its variables are cut, in every form."""
    instance, path = solved
    for solver in ("Gurobi", "CPLEX", "SCIP"):
        text = in_words_of(solver, path, zeros=solver != "SCIP")
        lines = text.splitlines(keepends=True)
        for keep in range(0, len(lines) - 4, 7):
            cut = tmp_path / "cut.sol"
            cut.write_text("".join(lines[:keep]))
            if solver == "SCIP" and keep > 8:
                continue  # zeros are left out, so a late cut may be another choice: for the judge
            with pytest.raises(FormatError):
                solution_from_sol(instance, cut)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no solution file"),
        ("Columns\n Index Status\n", "write it with write_solution_style 0"),
        ("solution status: infeasible\nno solution available\n", "says that there is no solution"),
        ("# Objective value = 3\n", "has no variable, so no solution"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares a document type or entities"),
        ("<CPLEXSolution><variables>", "is no valid XML, or cut"),
        ("<other/>", "has <other>, expected <CPLEXSolution>"),
    ],
)
def test_files_without_a_solution(tmp_path: Path, text: str, message: str) -> None:
    """No solution, other styles, XML that expands."""
    path = tmp_path / "a.sol"
    path.write_text(text)
    with pytest.raises(FormatError) as refused:
        read_sol(path)
    assert message in str(refused.value)
