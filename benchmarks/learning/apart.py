"""Nodes that decide apart, by rules and by checkpoints, on fresh draws with rates in closed form.

    python3 benchmarks/learning/apart.py -o FOLDER --classes slow-60,persist-60 --draws 32
    python3 benchmarks/learning/apart.py -o FOLDER --table

Gaps are over a lower bound in hindsight at the same rates, in percent. A draw takes about 20 CPU
seconds, most of them for the values of its network and for the bound. The script goes on from the
rows in the folder.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from draws import FIRST_SEED, scenario_file
from play import Planner

from finecast.learners.algorithms.apart_actors import APART
from finecast.learners.learner import play
from finecast.learners.policy import load_policy
from finecast.learners.runs.held_out import closed_form_bound
from finecast.learners.world.baselines import Rolling
from finecast.learners.world.beliefs import beliefs_of, network_values
from finecast.learners.world.draws import surrogate_of
from finecast.learners.world.environment import roll
from finecast.learners.world.episodes import Episodes
from finecast.problem.instance import Instance
from finecast.problem.scenario import read_scenario
from finecast.solvers.heuristics.apart import Apart
from finecast.solvers.heuristics.expected import TYPICAL_EXPONENT
from finecast.solvers.heuristics.programme_values import Values
from finecast.solvers.information import INFORMATION, Sight
from finecast.solvers.online import Observation, prior_of, run_online
from finecast.solvers.placement.problem import PlacementProblem, placement_delay

RULES = ("plan", "inertia", "simulate", "own-savings")

MOST_ROWS = 2 + len(RULES) * len(INFORMATION)
"""Rows of a draw without checkpoints."""


@dataclass
class KnownValues(Apart):
    """The rule at values that are known already."""

    known: Values | None = field(default=None, repr=False)

    def values_for(self, common: Sight) -> Values:
        """Return them."""
        assert self.known is not None
        return self.known


def main() -> None:
    """Play all rules and checkpoints on all draws, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--classes", default="slow-60,persist-60")
    parser.add_argument("--draws", type=int, default=32)
    parser.add_argument("--first", type=int, default=0, help="first draw")
    parser.add_argument("--checkpoints", default="", help="NAME=FOLDER, separated by commas")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    file = given.output / "apart.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if given.table:
        print(table(rows))
        return
    checkpoints = dict(part.split("=", 1) for part in given.checkpoints.split(",") if part)
    done = {(row["class"], row["draw"], row["information"], row["method"]) for row in rows}
    with file.open("a") as stream:
        for name in given.classes.split(","):
            scenario = read_scenario(scenario_file(name))
            for draw in range(given.first, given.first + given.draws):
                known = {
                    (seen, method) for of, at, seen, method in done if (of, at) == (name, draw)
                }
                if len(known) == MOST_ROWS + len(checkpoints):
                    continue
                instance = scenario.generate(FIRST_SEED + draw)
                for row in measured(instance, checkpoints, known):
                    stream.write(json.dumps({"class": name, "draw": draw, **row}) + "\n")
                    stream.flush()


def measured(
    instance: Instance, checkpoints: dict[str, str], done: set[tuple[str, str]]
) -> list[dict[str, object]]:
    """Return a row for every structure and rule, and for every checkpoint, that is not done."""
    episode = surrogate_of(instance, TYPICAL_EXPONENT)
    bound = closed_form_bound(episode, 0)
    values = network_values(instance)
    problem, observations = in_closed_form(instance, episode)
    rows: list[dict[str, object]] = []

    def add(information: str, method: str, delay: float, began: float) -> None:
        gap = 100.0 * (delay / bound - 1.0)
        spent = time.process_time() - began
        row = {"information": information, "method": method, "gap": gap, "cpu_s": spent}
        rows.append(row)

    known = {name: replace(episode, beliefs=beliefs_of(instance, name, values)) for name in APART}
    for method, policy in (("rolling", Rolling()), ("programme", Planner())):
        if ("full", method) in done:
            continue
        began = time.process_time()
        total = roll(known["full"], policy, rounds=3, joint="exact").total
        add("full", method, float(total), began)
    for information in INFORMATION:
        for rule in RULES:
            if (information, rule) in done:
                continue
            began = time.process_time()
            policy = KnownValues(information=information, rule=rule, known=values)
            placement = run_online(policy, prior_of(instance), observations)
            add(information, rule, placement_delay(problem, placement), began)
    for name, folder in checkpoints.items():
        policy, saved = load_policy(folder)
        information = str(saved.options["information"])
        if (information, name) in done:
            continue
        began = time.process_time()
        add(information, name, float(play(known[information], policy).total), began)
    return rows


def in_closed_form(
    instance: Instance, episode: Episodes
) -> tuple[PlacementProblem, list[Observation]]:
    """Return the problem at the rates of an episode, and what is known of it slot by slot."""
    prior = prior_of(instance)
    group = episode.group[0].numpy()
    tables = [
        table[: int(row.max()) + 1].numpy()
        for row, table in zip(episode.group[0], episode.broadcast[0], strict=True)
    ]
    size, storage = instance.library.block_size, instance.network.storage
    problem = PlacementProblem(size, storage, group, tuple(tables), prior.link)
    observations = [
        Observation(
            prior,
            t,
            instance.requests[: t + 1],
            instance.channel_estimate[: t + 1],
            instance.channel_error[: t + 1],
            None,
            None,
            PlacementProblem(size, storage, group[t : t + 1], (tables[t],), prior.link),
        )
        for t in range(instance.slots)
    ]
    return problem, observations


def table(rows: list[dict[str, object]]) -> str:
    """Return mean gaps with 95 % intervals over draws, a column a class."""
    classes = list(dict.fromkeys(row["class"] for row in rows))
    lines = ["| nodes see | decided by | " + " | ".join(map(str, classes)) + " |"]
    lines.append("|---|---|" + "---|" * len(classes))
    for information in INFORMATION:
        of_structure = [row for row in rows if row["information"] == information]
        for method in dict.fromkeys(row["method"] for row in of_structure):
            cells = []
            for name in classes:
                gaps = np.array(
                    [
                        row["gap"]
                        for row in of_structure
                        if row["method"] == method and row["class"] == name
                    ]
                )
                half = 1.96 * gaps.std(ddof=1) / len(gaps) ** 0.5 if len(gaps) > 1 else np.nan
                cells.append(f"{gaps.mean():.2f} ± {half:.2f} ({len(gaps)})" if len(gaps) else "")
            lines.append(f"| {information} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
