"""Learners and classical online methods on fresh draws, against the certified bound.

    python3 benchmarks/learning prepare -o FOLDER
    python3 benchmarks/learning train -o FOLDER --runs leaders --seeds 0-4 --budget 80
    python3 benchmarks/learning evaluate -o FOLDER --methods baselines,runs,curves
    python3 benchmarks/learning times -o FOLDER --runs leaders
    python3 benchmarks/learning table -o FOLDER --figure docs/benchmarks/learning.svg

Every step goes on from the files in the folder, so that a benchmark that was killed can be
continued. A step is one process with one thread. Several processes can share a folder if their runs
or classes differ. Budgets are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from draws import CLASSES, prepare
from marl_eval import marl_eval
from play import decision_times, described, evaluated
from runs import GROUPS, named, train_all
from tables import figure, tables

from finecast.compare.runs.machine import machine
from finecast.solvers.solve import versions


def main() -> None:
    """Do one step of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("step", choices=("prepare", "train", "evaluate", "times", "table"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for everything")
    parser.add_argument("--classes", default=",".join(CLASSES))
    parser.add_argument("--draws", type=int, default=64, help="of every class, at most")
    parser.add_argument("--runs", default=",".join(GROUPS), help="runs or groups of them")
    parser.add_argument("--seeds", default="0-2", help="of training, FIRST-LAST")
    parser.add_argument("--budget", type=float, default=60.0, help="CPU seconds of every run")
    parser.add_argument(
        "--methods",
        default="baselines,runs",
        help="what to play: names, baselines, runs, shipped; and curves for the marks of the runs",
    )
    parser.add_argument("--figure", type=Path, help="file for the curves, SVG")
    parser.add_argument("--marl-eval", type=Path, help="of `table`: file for marl-eval, JSON")
    parser.add_argument("--json", action="store_true", help="of `table`: everything as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder, classes = given.output, given.classes.split(",")
    if unknown := [name for name in classes if name not in CLASSES]:
        parser.error(f"--classes: {unknown[0]!r} is unknown; known: {', '.join(CLASSES)}")
    try:
        runs = named(given.runs)
    except ValueError as error:
        parser.error(f"--runs: {error}")
    if given.step == "prepare":
        for line in prepare(folder, classes, given.draws):
            print(line, flush=True)
    elif given.step == "train":
        first, _, last = given.seeds.partition("-")
        seeds = list(range(int(first), int(last or first) + 1))
        for line in train_all(folder, runs, seeds, given.budget):
            print(line, flush=True)
    elif given.step == "evaluate":
        for line in evaluated(folder, classes, given.methods.split(","), given.draws):
            print(line, flush=True)
    elif given.step == "times":
        with (folder / "times.jsonl").open("a") as stream:
            for row in decision_times(folder, classes[0], runs):
                print(row, flush=True)
                stream.write(json.dumps(row) + "\n")
    else:
        made_with = {**machine(), "versions": versions()}
        if given.json:
            print(json.dumps({"runs": described(folder), "made_with": made_with}, indent=1))
        else:
            print(tables(folder, made_with))
        if given.figure:
            figure(folder, given.figure)
        if given.marl_eval:
            given.marl_eval.write_text(json.dumps(marl_eval(folder)) + "\n")


if __name__ == "__main__":
    main()
