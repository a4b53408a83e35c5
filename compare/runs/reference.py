"""The reference library: every instance of the shipped suites, and what is known of it.

The suites are frozen by hash, and `data/best_known.json` has the best delay and the best bound of
an instance with where they come from. Small solutions are stored beside that file, one for each
instance hash, so that the judge can find the delay again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finecast.compare.runs.best_known import IMPROVES, judged_delay, solution_file
from finecast.compare.runs.records import drawn_from
from finecast.compare.runs.suite import InstanceClass, Suite, draw, read_suite
from finecast.problem.files import FormatError
from finecast.problem.instance import write_instance
from finecast.problem.shipped import shipped

PROVEN = 1e-6
"""An instance is proven where the best delay is at most so much above the best bound."""


@dataclass(frozen=True)
class Standing:
    """What is known of an instance of a suite.

    Attributes
    ----------
    suite, instance_class
        Names.
    seed, path
        What drew it; no path where the class has none.
    hash
        Of the instance, as frozen.
    delay, lower_bound
        Best known, s; None where nothing is.
    bound_kind
        "certified", or "milp" where it is a solver's word; "" without a bound.
    delay_from, bound_from
        Method, options, versions, date; None where nothing is known.
    """

    suite: str
    instance_class: str
    seed: int
    path: int | None
    hash: str
    delay: float | None = None
    lower_bound: float | None = None
    bound_kind: str = ""
    delay_from: Mapping[str, Any] | None = None
    bound_from: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The name of the instance: SUITE/CLASS/SEED, and /PATH where there is one."""
        path = () if self.path is None else (str(self.path),)
        return "/".join((self.suite, self.instance_class, str(self.seed), *path))

    @property
    def gap(self) -> float | None:
        """The best delay over the best bound, less 1."""
        if self.delay is None or not self.lower_bound:
            return None
        return max(0.0, self.delay / self.lower_bound - 1.0)

    @property
    def state(self) -> str:
        """One of "proven", "proven by MILP" (a solver's word), "open" and "unsolved"."""
        if self.gap is None:
            return "unsolved"
        if self.gap > PROVEN:
            return "open"
        return "proven" if self.bound_kind == "certified" else "proven by MILP"


def standings(suite: Suite, known: Mapping[str, Mapping[str, Any]]) -> list[Standing]:
    """Return what is known of every instance of a suite, in its order.

    Parameters
    ----------
    suite
        The suite.
    known
        Entries by instance hash, from `finecast.compare.runs.best_known.read_best_known`.

    Raises
    ------
    FormatError
        An instance of the suite is not frozen.
    """
    found = []
    for instance_class in suite.classes:
        for seed, path in suite.draws(instance_class):
            frozen = suite.frozen_hash(instance_class, seed, path)
            if frozen is None:
                raise FormatError(
                    suite.file,
                    f"class {instance_class.name!r}, {drawn_from(seed, path)}: is not frozen, "
                    "finecast compare --freeze writes the hashes",
                )
            entry = known.get(frozen, {})
            bound_from = entry.get("bound_from")
            found.append(
                Standing(
                    suite.name,
                    instance_class.name,
                    seed,
                    path,
                    frozen,
                    entry.get("delay"),
                    entry.get("lower_bound"),
                    bound_from["bound_kind"] if bound_from else "",
                    entry.get("delay_from"),
                    bound_from,
                )
            )
    return found


def all_suites(names: Iterable[str] = ()) -> list[Suite]:
    """Return the suites of these names or files, all shipped ones without any.

    Raises
    ------
    FormatError
        There is no such suite, or one is damaged.
    """
    return [read_suite(name) for name in list(names) or shipped("suite")]


def named_instance(name: str) -> tuple[Suite, InstanceClass, int, int | None]:
    """Return suite, class, seed and path of an instance by its name, SUITE/CLASS/SEED[/PATH].

    Raises
    ------
    FormatError
        There is no such suite.
    ValueError
        The suite has no such instance.
    """
    parts = name.split("/")
    if len(parts) not in (3, 4):
        raise ValueError(f"{name!r} is not allowed, expected SUITE/CLASS/SEED or .../SEED/PATH")
    suite = read_suite(parts[0])
    classes = {instance_class.name: instance_class for instance_class in suite.classes}
    if parts[1] not in classes:
        raise ValueError(f"{name!r}: suite {suite.name!r} has the classes {', '.join(classes)}")
    for seed, path in suite.draws(classes[parts[1]]):
        if parts[2:] == [str(number) for number in (seed, path) if number is not None]:
            return suite, classes[parts[1]], seed, path
    raise ValueError(f"{name!r}: class {parts[1]!r} has no such instance")


def write_instances(
    suite: Suite, folder: str | os.PathLike[str], classes: Iterable[str] = ()
) -> Iterator[tuple[str, Path]]:
    """Write the instances of a suite as files; yield name and file of each as it is there.

    Parameters
    ----------
    suite
        The suite.
    folder
        Made if it is not there.
    classes
        Names of classes; all without any.

    Raises
    ------
    FormatError
        The generator has drifted, or a file cannot be written.
    ValueError
        There is no such class.
    """
    chosen = list(classes)
    known = [instance_class.name for instance_class in suite.classes]
    for name in chosen:
        if name not in known:
            raise ValueError(f"classes: {name!r} is none of {', '.join(known)}")
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise FormatError(target, "is a file, expected a folder")
    target.mkdir(parents=True, exist_ok=True)
    for instance_class in suite.classes:
        if chosen and instance_class.name not in chosen:
            continue
        for seed, path in suite.draws(instance_class):
            drawn = draw(suite, instance_class, seed, path)
            of_path = "" if path is None else f"-p{path}"
            file = target / f"{suite.name}-{instance_class.name}-s{seed}{of_path}.npz"
            write_instance(file, drawn.instance)
            yield Standing(suite.name, instance_class.name, seed, path, drawn.hash).name, file


def faults(
    suites: Iterable[Suite], known: Mapping[str, Mapping[str, Any]], path: Path
) -> Iterator[str]:
    """Draw all instances anew, and judge what is stored of them; yield a line for each fault.

    A fault is an instance that the generator draws differently today, an instance that is not
    frozen, a bound above its best known delay, a best known value of no instance, and a stored
    solution in which the judge does not find the best known delay.

    Parameters
    ----------
    suites
        The suites.
    known
        Entries by instance hash.
    path
        Of their file; the solutions are beside it.
    """
    checked, names = set(), set()
    for suite in suites:
        names.add(suite.name)
        for instance_class in suite.classes:
            for seed, number in suite.draws(instance_class):
                where = f"{suite.name}, {instance_class.name}, {drawn_from(seed, number)}"
                frozen = suite.frozen_hash(instance_class, seed, number)
                if frozen is None:
                    yield f"{where}: is not frozen"
                    continue
                checked.add(frozen)
                try:
                    drawn = draw(suite, instance_class, seed, number)
                except FormatError as error:
                    yield str(error)
                    continue
                entry = known.get(frozen)
                if entry is None:
                    continue
                delay, bound = entry["delay"], entry["lower_bound"]
                if delay is not None and bound is not None and bound > delay * (1 + IMPROVES):
                    yield f"{where}: the bound {bound:.9g} s is above the delay {delay:.9g} s"
                stored = solution_file(path, frozen)
                if stored.exists():
                    judged = judged_delay(drawn.instance, stored)
                    if isinstance(judged, str):
                        yield f"{where}: {stored}: {judged}"
                    elif delay is None or abs(judged - delay) > IMPROVES * judged:
                        said = "none" if delay is None else f"{delay:.9g} s"
                        yield f"{where}: best known is {said}, {stored} has {judged:.9g} s"
    for key, entry in known.items():
        if entry["suite"] in names and key not in checked:
            yield f"{path}: {key[:12]} is of suite {entry['suite']!r}, which has no such instance"
