"""Online methods against hindsight and against the best that any online method could do.

    python3 benchmarks/online.py --json --classes slow-60 --networks 16
    python3 benchmarks/online.py -o FOLDER --networks 64 --markdown
    python3 benchmarks/online.py -o FOLDER --networks 8 --paths 16

Every class draws networks from fresh seeds, and on each network so many paths: courses of requests
and fading. The rates of a path, with true beams, are computed once for all methods; each method
meets the slots one by one. Delays are the judge's. With `-o` every result is a line of a file there
as soon as it is known: the same command goes on from what the folder holds.

Times are CPU seconds of this process, so one core, medians: the rates apart, preparation (the first
caches, and what slot 0 takes above the other slots) and slots apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import numpy as np

from finecast.compare.report.comparison import Comparison, compare_runs
from finecast.compare.report.online import (
    OnlineFigures,
    impossible_gaps,
    online_figures,
    online_rows,
)
from finecast.compare.report.statistics import Estimate, ratio_of_means
from finecast.compare.runs.path_bounds import StoredBound, read_path_bound, write_path_bound
from finecast.compare.runs.records import Record
from finecast.problem.arrays import BoolArray, IntArray
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario, read_scenario
from finecast.solvers.delivery import deliver
from finecast.solvers.heuristics.expected import coming_tables
from finecast.solvers.heuristics.joint_keep import keep_jointly
from finecast.solvers.heuristics.rules import keep_by_cost, pull
from finecast.solvers.online import (
    Observation,
    Policy,
    Prior,
    joined,
    observation_of,
    prepare_slots,
    prior_of,
    run_online,
)
from finecast.solvers.online_bound import hindsight_bound, penalised_bound
from finecast.solvers.penalties import kinds_of, penalties_of, trained_programme
from finecast.solvers.placement.demand_programme import DemandProgramme
from finecast.solvers.prepared import Prepared
from finecast.solvers.registry import method_of
from finecast.solvers.solve import versions

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = ROOT / "data" / "scenarios"

Key = tuple[str, int, int, str]
"""Class, seed of the network, path (-1 for the whole network), and what was measured."""

Row = dict[str, Any]

KEEP, BOUND, RATES = "joint keep rule", "online bound", "rates"
"""What is measured besides methods."""

TIMES = ("preparation_s", "slot_ms", "bound_s", "rates_s", "over_its_bound")

REFERENCE = "rolling in-turn"
"""What the others are paired with: `rolling` as it was before the joint rule."""


@dataclass(frozen=True)
class Kind:
    """A class of networks.

    Parameters
    ----------
    scenario
        File, relative to `data/scenarios`.
    first_seed
        Seed of its first network; no other page of the project uses these.
    changes
        Keys of the scenario with other values.
    over_hindsight, over_online
        Targets by method, per cent above the two bounds.
    """

    scenario: str
    first_seed: int
    changes: dict[str, Any] = field(default_factory=dict)
    over_hindsight: dict[str, float] = field(default_factory=dict)
    over_online: dict[str, float] = field(default_factory=dict)

    def drawn(self) -> Scenario:
        """Return the scenario."""
        scenario = read_scenario(SCENARIOS / self.scenario)
        return scenario.with_(self.changes) if self.changes else scenario


def targets(programme: float, rolling: float, dcg: float) -> dict[str, float]:
    """Return targets above the hindsight bound, by method, per cent."""
    return {"programme": programme, "rolling joint": rolling, "dcg joint": dcg}


CLASSES = {
    "slow-60": Kind(
        "learning/slow-60.toml", 9101, {}, targets(3.8, 5.5, 4.8), {"programme": 1.5}
    ),
    "persist-60": Kind(
        "learning/persist-60.toml", 9301, {}, targets(1.6, 2.2, 2.1), {"programme": 0.6}
    ),
    "persist": Kind("persist.toml", 9501, {}, targets(2.4, 3.6, 3.2), {"programme": 0.8}),
    "slow-200": Kind(
        "learning/slow-200.toml", 9701, {}, targets(6.0, 9.0, 7.0), {"programme": 3.0}
    ),
    "periodic": Kind("periodic.toml", 9901),
    "paper": Kind(
        "vision-horizon.toml", 10101, {"slots": 4, "nodes.storage_gb": 4.0}, {"programme": 2.5}
    ),
}  # fmt: skip
"""`paper` is the class storage-4 of the suite of that name."""

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "rolling in-turn": ("rolling", {"keep": "in-turn"}),
    "rolling joint": ("rolling", {"keep": "joint"}),
    "mpc in-turn": ("mpc", {"keep": "in-turn"}),
    "mpc joint": ("mpc", {"keep": "joint"}),
    "programme": ("programme", {}),
    "dcg in-turn": ("policy", {"checkpoint": "dcg", "keep": "in-turn"}),
    "dcg joint": ("policy", {"checkpoint": "dcg", "keep": "joint"}),
    "greedy-online": ("greedy-online", {}),
    "own-savings": ("own-savings", {}),
    "qlru-delta": ("qlru-delta", {}),
    "qlru-hs": ("qlru-hs", {}),
    "bsca": ("bsca", {}),
    "ftpl": ("ftpl", {}),
    "oftrl": ("oftrl", {}),
    "lru": ("lru", {}),
}
"""Registered name and options by label."""


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--classes", type=words(CLASSES), default=list(CLASSES), metavar="LIST")
    parser.add_argument("--methods", type=words(METHODS), default=list(METHODS), metavar="LIST")
    parser.add_argument("--networks", type=positive, default=4, help="networks of each class")
    parser.add_argument("--paths", type=positive, default=1, help="paths of each network")
    parser.add_argument("-o", "--output", type=Path, help="folder of results to go on from")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="figures as JSON")
    form.add_argument("--markdown", action="store_true", help="tables as Markdown")
    given = parser.parse_args()
    with ExitStack() as temporary:
        folder = given.output or Path(temporary.enter_context(tempfile.TemporaryDirectory()))
        rows = Rows(folder)
        for name in given.classes:
            for number in range(given.networks):
                for line in measured(rows, name, number, given.paths, given.methods):
                    print(line, file=sys.stderr, flush=True)
        found = figures(rows, given.classes, given.networks, given.paths, given.methods)
    if given.json:
        print(json.dumps(as_json(found), indent=1, allow_nan=False))
    else:
        print("\n\n".join(tables(found)))


def words(known: Iterable[str]) -> Any:
    """Return what reads a list of known words, by commas."""

    def read(text: str) -> list[str]:
        chosen = [word.strip() for word in text.split(",")]
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return chosen

    return read


def positive(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, must be a number above 0")
    return int(text)


class Rows:
    """Results by class, network, path and what was measured; kept in a file that only grows.

    A line that a killed run left half written counts as missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "rows.jsonl"
        self._known: dict[Key, Row] = {}
        (folder / "online").mkdir(parents=True, exist_ok=True)
        for line in self._file.read_text().splitlines() if self._file.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            self._known[row["class"], row["network"], row["path"], row["what"]] = row

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def get(self, key: Key) -> Row | None:
        """Return a row, None where it is missing."""
        return self._known.get(key)

    def add(self, key: Key, **values: Any) -> None:
        """Append a row."""
        row = dict(zip(("class", "network", "path", "what"), key, strict=True)) | values
        with self._file.open("ab", buffering=0) as stream:
            stream.write(b"\n" * self._torn() + json.dumps(row).encode() + b"\n")
        self._known[key] = row

    def _torn(self) -> bool:
        """Return whether the file ends within a line."""
        if not self._file.exists() or not (size := self._file.stat().st_size):
            return False
        with self._file.open("rb") as stream:
            stream.seek(size - 1)
            return stream.read() != b"\n"

    def of(self, kind: str, what: str) -> list[Row]:
        """Return the rows of a class and what was measured."""
        return [row for key, row in self._known.items() if (key[0], key[3]) == (kind, what)]


# --- Measuring ---


def measured(
    rows: Rows, kind: str, number: int, paths: int, methods: Sequence[str]
) -> Iterator[str]:
    """Measure what is missing of one network; yield a line for each path."""
    seed = CLASSES[kind].first_seed + number
    scenario = CLASSES[kind].drawn()
    missing = {
        path: [m for m in (*methods, KEEP) if (kind, seed, path, m) not in rows]
        for path in range(paths)
    }
    files = {path: rows.folder / "online" / f"{kind}-{seed}-{path}.npz" for path in missing}
    unbounded = [path for path in missing if not files[path].exists()]
    if unbounded:
        began = time.process_time()
        programme = trained_programme(scenario, seed)
        rows.add((kind, seed, -1, BOUND), preparation_s=time.process_time() - began)
    for path, missing_methods in missing.items():
        if path not in unbounded and not missing_methods:
            continue
        instance = scenario.generate(seed, path)
        slots = rates_of(rows, (kind, seed, path, RATES), instance)
        whole = joined(instance, slots)
        if path in unbounded:
            began = time.process_time()
            bound = bounded(whole, programme)
            spent = time.process_time() - began
            write_path_bound(files[path], bound)
            rows.add((kind, seed, path, BOUND), bound_s=spent)
        bound = read_path_bound(files[path])
        prior = prior_of(instance)
        seen = [observation_of(instance, prior, t, slot) for t, slot in enumerate(slots)]
        said = []
        for method in missing_methods:
            if method == KEEP:
                rows.add((kind, seed, path, KEEP), **keep_times(seen))
                continue
            result = played(method, whole, prior, seen, bound)
            rows.add((kind, seed, path, method), **result)
            if result["delay"] is not None:
                over = 100 * (result["delay"] / bound.hindsight_bound - 1)
                said.append(f"{method} {over:.2f}")
        yield f"{kind} {seed}/{path}: % over hindsight: {', '.join(said)}"


def rates_of(rows: Rows, key: Key, instance: Instance) -> tuple[Prepared, ...]:
    """Return the rates of a path, each slot's from that slot alone; they are kept in the folder."""
    began = time.process_time()
    slots = prepare_slots(instance, rate_cache=str(rows.folder / "rates"))
    if key not in rows:
        rows.add(key, rates_s=time.process_time() - began)
    return slots


def bounded(whole: Prepared, programme: DemandProgramme) -> StoredBound:
    """Return the bounds of a path whose rates are known."""
    instance = whole.instance
    assert whole.bounded is not None
    kind = kinds_of(instance)
    penalty = penalties_of(programme, instance.requests[None])[0]
    prices, hindsight = hindsight_bound(whole.bounded)
    return StoredBound(
        hindsight_bound=hindsight,
        online_bound=penalised_bound(whole.bounded, kind, penalty, prices),
        penalty=penalty,
        kind=kind,
        block_size=instance.library.block_size,
        solved_hash=instance.content_hash,
    )


class Timed:
    """A policy whose CPU seconds are counted."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.place_s = 0.0
        self.act_s: list[float] = []

    def place(self, prior: Prior) -> BoolArray:
        """Place as the policy does."""
        began = time.process_time()
        placed = self.policy.place(prior)
        self.place_s = time.process_time() - began
        return placed

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Act as the policy does."""
        began = time.process_time()
        acted = self.policy.act(observation, cache)
        self.act_s.append(time.process_time() - began)
        return acted


def policy_of(label: str) -> Policy:
    """Return the policy of a method."""
    name, options = METHODS[label]
    if name != "policy":
        policy: Policy = method_of(name).load()(**options)
        return policy
    from finecast.learners.policy import Learned, load_policy

    nodes, trained = load_policy(str(options["checkpoint"]))
    horizon = int(trained.run.get("source", {}).get("horizon", 3))
    return Learned(nodes, horizon, keep=options["keep"])


def played(
    label: str, whole: Prepared, prior: Prior, seen: Sequence[Observation], bound: StoredBound
) -> dict[str, Any]:
    """Return what a method came to on a path, as the judge finds it."""
    timed = Timed(policy_of(label))
    placement = run_online(timed, prior, seen)
    solution = deliver(
        whole.instance, placement, whole.plans, whole.rates, robust=True, method=label
    )
    judged = evaluate(whole.instance, solution)
    delay = judged.delay if judged.feasible else None
    gap = None if delay is None else bound.controlled_gap(delay, placement.cache)
    usual = statistics.median(timed.act_s)
    return {
        "delay": delay,
        "controlled_gap": gap,
        "preparation_s": timed.place_s + max(timed.act_s[0] - usual, 0.0),
        "slot_ms": 1e3 * usual,
    }


def keep_times(seen: Sequence[Observation]) -> dict[str, Any]:
    """Return what the joint keep rule alone takes on the tables of `rolling`, and how good it is.

    From slot to slot it keeps what it chose. It starts from the answer in turn, which is not timed.
    """
    policy = policy_of("rolling joint")
    cache = policy.place(seen[0].prior)
    spent, above = [], []
    for observation in seen[:-1]:
        problem = observation.problem
        source = pull(problem, cache)
        cost = coming_tables(observation, 1).cost[0]
        held = cache | (source >= 0)
        size, storage = problem.block_size, problem.storage
        nobody = np.zeros(len(size), dtype=np.int64)
        start = keep_by_cost(cost, held, size, storage, nobody, rounds=3)
        began = time.process_time()
        kept = keep_jointly(cost, held, size, storage, start=start)
        spent.append(time.process_time() - began)
        above.append(kept.value / kept.bound - 1.0)
        cache = kept.keep
    return {"slot_ms": 1e3 * statistics.median(spent), "over_its_bound": statistics.median(above)}


# --- Figures ---


@dataclass(frozen=True)
class Figures:
    """What one class came to."""

    kind: str
    online: list[OnlineFigures]
    against: dict[str, Estimate]
    times: dict[str, dict[str, float]]
    seeds: str
    wrong: list[str]


def figures(
    rows: Rows, kinds: Sequence[str], networks: int, paths: int, methods: Sequence[str]
) -> list[Figures]:
    """Return the figures of the classes, of the rows asked for."""
    found = []
    for kind in kinds:
        first = CLASSES[kind].first_seed
        places = [(first + n, p) for n in range(networks) for p in range(paths)]
        records = []
        for seed, path in places:
            bound = read_path_bound(rows.folder / "online" / f"{kind}-{seed}-{path}.npz")
            for method in methods:
                row = rows.get((kind, seed, path, method))
                assert row is not None
                records.append(record_of(row, bound))
        comparison = compare_runs(records)
        found.append(
            Figures(
                kind,
                online_figures(comparison),
                against(comparison),
                times_of(rows, kind, methods),
                f"{first} to {first + networks - 1}, paths 0 to {paths - 1}",
                impossible_gaps(comparison),
            )
        )
    return found


def record_of(row: Row, bound: StoredBound) -> Record:
    """Return a row as a run that the report's statistics take."""
    name, options = METHODS[row["what"]]
    place = f"{row['class']} {row['network']} {row['path']}"
    return Record(
        key=f"{place} {row['what']}", suite="online", suite_version=1, instance_class=row["class"],
        scenario=row["class"], instance_seed=row["network"], path=row["path"], instance_hash=place,
        solved_hash=place, label=row["what"], method=name, options=json.dumps(options),
        restrict="", delivery="sequential", schedule="sequential", seed=0, versions={},
        status="infeasible" if row["delay"] is None else "completed", delay=row["delay"],
        hindsight_bound=bound.hindsight_bound, online_bound=bound.online_bound,
        controlled_gap=row["controlled_gap"],
    )  # fmt: skip


def against(comparison: Comparison) -> dict[str, Estimate]:
    """Return by method its mean delay less that of `REFERENCE`, over the mean hindsight bound."""
    if REFERENCE not in comparison.labels:
        return {}
    delay, column = comparison.mean_delay, comparison.labels.index(REFERENCE)
    bound = [comparison.bound[place] for place in comparison.instances]
    networks = [place.split()[1] for place in comparison.instances]
    cluster = networks if len(set(networks)) > 1 else list(comparison.instances)
    return {
        label: ratio_of_means(delay[:, i] - delay[:, column], bound, cluster)
        for i, label in enumerate(comparison.labels)
        if label != REFERENCE
    }


def times_of(rows: Rows, kind: str, methods: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return medians over all rows of a class: CPU seconds and milliseconds of one core."""
    times = {}
    for what in (*methods, KEEP, BOUND, RATES):
        own = rows.of(kind, what)
        names = [name for name in TIMES if any(name in row for row in own)]
        times[what] = {
            name: statistics.median(row[name] for row in own if name in row) for name in names
        }
    return times


def as_json(found: Sequence[Figures]) -> dict[str, Any]:
    """Return everything as JSON."""
    return {
        "machine": machine_in_words(),
        "versions": versions(),
        "classes": {
            f.kind: {
                "seeds": f.seeds,
                "figures": online_rows(f.online),
                "against_reference": {
                    label: [e.value, e.low, e.high] for label, e in f.against.items()
                },
                "targets": {
                    "over_hindsight_percent": CLASSES[f.kind].over_hindsight,
                    "over_online_percent": CLASSES[f.kind].over_online,
                },
                "times": f.times,
                "wrong": f.wrong,
            }
            for f in found
        },
    }


def tables(found: Sequence[Figures]) -> Iterator[str]:
    """Yield the tables as Markdown."""
    yield "\n".join(f"{name} {version}" for name, version in versions().items())
    yield machine_in_words()
    for f in found:
        kind = CLASSES[f.kind]
        information = f.online[0].information
        yield (
            f"### {f.kind}\n\nSeeds {f.seeds}: {f.online[0].networks} networks, "
            f"{f.online[0].paths} paths. Value of information: {percent(information)} of the "
            "hindsight bound."
        )
        head = ["method", "over hindsight", "target", "over the online bound", "target",
                "of it keep rule", f"less {REFERENCE}", "preparation, s", "ms a slot"]  # fmt: skip
        body = []
        for of in f.online:
            spent = f.times[of.label]
            body.append(
                [
                    of.label,
                    percent(of.over_hindsight),
                    target(kind.over_hindsight.get(of.label), of.over_hindsight),
                    percent(of.over_online),
                    target(kind.over_online.get(of.label), of.over_online),
                    "" if of.keep is None else percent(of.keep),
                    percent(f.against[of.label]) if of.label in f.against else "",
                    f"{spent['preparation_s']:.2f}",
                    f"{spent['slot_ms']:.1f}",
                ]
            )
        yield pipe_table(head, body)
        keep, bound = f.times[KEEP], f.times[BOUND]
        yield (
            f"Joint keep rule alone: {keep['slot_ms']:.1f} ms a slot, "
            f"{100 * keep['over_its_bound']:.2f} % above its own dual bound. Online bound: "
            f"{bound['preparation_s']:.1f} s a network, {bound['bound_s']:.2f} s a path. Rates of "
            f"a path: {f.times[RATES]['rates_s']:.1f} s."
        )
        yield from f.wrong


def percent(estimate: Estimate) -> str:
    """Return per cent with the interval."""
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def target(wanted: float | None, reached: Estimate) -> str:
    """Return a target, and whether the estimate reaches it."""
    if wanted is None:
        return ""
    return f"{wanted:g}, {'reached' if 100 * reached.value <= wanted else 'missed'}"


def pipe_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine_in_words() -> str:
    """Return what the figures were measured on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
