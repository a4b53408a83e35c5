"""Suites: named, versioned classes of instances and the methods to compare on them, in TOML.

A class is a scenario and the seeds that draw its instances. What the seeds drew when the suite was
made is frozen as a hash for each instance in `NAME.hashes.json` beside `NAME.toml`; a generator
that draws anything else today is refused, so that rows of two years and two machines are of the
same instances.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from finecast.compare.runs.grid import expanded, named_by
from finecast.compare.runs.records import drawn_from
from finecast.problem.files import FormatError, read_json, reading, write_atomically
from finecast.problem.instance import Instance, read_instance
from finecast.problem.scenario import Scenario, placed
from finecast.problem.shipped import find
from finecast.problem.toml import merged, read_model, read_toml, validated

SIGNIFICANT = 1e5
"""Real numbers enter an instance's hash to one part in so many."""

RESERVED = ("time_limit", "seed", "start", "callback", "instance", "method", "rate_cache")
"""Keywords of `solve` that are not for a suite's options."""

OWN_KEYS = ("restrict", "delivery", "schedule")
"""Options with keys, columns and checks of their own."""

LARGEST_SEED = 2**32 - 1

MOST_PATHS = 10_000
"""Paths of one network."""


def parse_seeds(given: Any) -> Any:
    """Return a list of seeds from `[0, 1, 2]`, `"0-2"` or `"0-2,7"`.

    Raises
    ------
    ValueError
        The text is something else.
    """
    if not isinstance(given, str):
        return given
    seeds: list[int] = []
    for part in given.split(","):
        ends = re.fullmatch(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10})\s*)?", part)
        if ends is None:
            raise ValueError(f"{given!r} is not allowed, expected seeds as in 0-4 or 0,2,5")
        start, end = int(ends[1]), int(ends[2] or ends[1])
        if not start <= end <= start + 9999:
            raise ValueError(f"{part!r} is not allowed, expected FIRST-LAST, at most 10000 seeds")
        seeds.extend(range(start, end + 1))
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{given!r} names a seed twice")
    return seeds


Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED, strict=True)]
Seeds = Annotated[list[Seed], Field(min_length=1), BeforeValidator(parse_seeds)]
Paths = Annotated[int, Field(ge=1, le=MOST_PATHS, strict=True)]
Name = Annotated[str, Field(pattern=r"^[^\s/][^/\n]{0,79}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MethodEntry(_Section):
    """A method with its options: a line in every table of the report.

    `label` is its name there, by default the method's; `delivery` and `schedule` replace those of
    the instance.
    """

    method: str
    label: Name = ""
    restrict: str = ""
    delivery: Literal["sequential", "spatial"] | None = None
    schedule: Literal["sequential", "pipelined"] | None = None
    options: dict[str, JsonValue] = {}

    @model_validator(mode="before")
    @classmethod
    def _default_label(cls, given: Any) -> Any:
        if isinstance(given, dict) and "label" not in given and "method" in given:
            return {**given, "label": given["method"]}
        return given

    @model_validator(mode="after")
    def _known_words(self) -> MethodEntry:
        for name in self.options:
            if name in RESERVED:
                raise ValueError(f"options: {name!r} is set by the runner, not by a suite")
            if name in OWN_KEYS:
                raise ValueError(f"options: {name!r} is a key of the method itself, not an option")
        return self


class SweepAxis(_Section):
    """A key of the scenario and the values that it takes, as in `vary = "nodes.storage_gb"`."""

    vary: Annotated[str, Field(pattern=r"^[a-z_]+(\.[a-z_]+)*$")]
    values: Annotated[list[JsonValue], Field(min_length=1)]


class InstanceClass(_Section):
    """Instances of one kind: a scenario, the seeds that draw them, and what is run on them.

    With `paths` every seed draws one network, and on it so many courses of requests and fading;
    without it one instance. `point` has the values of a sweep at this class, by dotted key.

    With `files` the instances are files of one's own (.npz) in place of draws: names relative to
    the suite, `*` and `?` stand for any characters. Numbers made of their content stand for seeds.
    """

    name: Name
    files: Annotated[list[str], Field(min_length=1)] | None = None
    point: dict[str, JsonValue] = {}
    description: str = ""
    scenario: dict[str, Any] = {}
    seeds: Seeds
    paths: Paths | None = None
    methods: list[str] | None = None
    time_limit_s: Positive | None = None
    memory_limit_gb: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _drawn_or_read(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not given.get("files"):
            return given
        for name in ("scenario", "seeds", "paths", "point"):
            if given.get(name) and given.get(name) != [0]:
                raise ValueError(f"files: not with {name}, which is for drawn instances")
        return {**given, "seeds": [0]}


class Suite(_Section):
    """A suite as it stands in its file; see docs/comparing.md."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
    version: Annotated[int, Field(ge=1, strict=True)] = 1
    description: str = ""
    scenario: dict[str, Any] = {}
    seeds: Seeds = [0]
    paths: Paths | None = None
    time_limit_s: Positive = 30.0
    grace_s: Positive = 30.0
    rates_limit_s: Positive = 1800.0
    memory_limit_gb: Positive = 4.0
    methods: list[MethodEntry] = Field(min_length=1)
    sweep: list[SweepAxis] = []
    classes: list[InstanceClass] = Field(min_length=1)
    _path: Path = Path("suite.toml")
    _hashes: dict[str, dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _at_all_points(cls, given: Any) -> Any:
        return expanded(given)

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        labels = [entry.label for entry in self.methods]
        for what, names in (("methods", labels), ("classes", [c.name for c in self.classes])):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{what}: the name {min(twice)!r} stands twice")
        for instance_class in self.classes:
            for label in instance_class.methods or ():
                if label not in labels:
                    raise ValueError(
                        f"classes.{instance_class.name}.methods: {label!r} is none of "
                        f"{', '.join(labels)}"
                    )
        return self

    @property
    def file(self) -> Path:
        """The file that it stands in."""
        return self._path

    def entries(self, instance_class: InstanceClass) -> list[MethodEntry]:
        """Return the methods of a class, in the order of the suite."""
        chosen = instance_class.methods
        return [entry for entry in self.methods if chosen is None or entry.label in chosen]

    def paths_of(self, instance_class: InstanceClass) -> Sequence[int | None]:
        """Return the numbers of the paths of a network; None alone for a seed's own instance."""
        count = instance_class.paths or self.paths
        return (None,) if count is None else range(count)

    def draws(self, instance_class: InstanceClass) -> list[tuple[int, int | None]]:
        """Return the seed and path of every instance of a class, network by network.

        Of a class of files, the number of each in place of the seed.
        """
        if instance_class.files is not None:
            return [(number, None) for number in self.files_of(instance_class)]
        return list(product(instance_class.seeds, self.paths_of(instance_class)))

    def files_of(self, instance_class: InstanceClass) -> dict[int, Path]:
        """Return the instance files of a class by number, in the order of patterns and names.

        The number is made of the content, so that it stays when other files come and go.

        Raises
        ------
        FormatError
            A pattern matches no file, a file is no instance, or two hold the same one.
        """
        found: dict[int, Path] = {}
        for pattern in instance_class.files or ():
            matched = sorted(glob.glob(os.path.join(glob.escape(str(self._path.parent)), pattern)))
            if not matched:
                raise FormatError(
                    self._path, f"classes.{instance_class.name}.files: {pattern!r} matches no file"
                )
            for path in map(Path, matched):
                stat = path.stat()
                number = _number_of(path, stat.st_mtime_ns, stat.st_size)
                if found.setdefault(number, path).resolve() != path.resolve():
                    raise FormatError(path, f"holds the same instance as {found[number]}")
        return found

    def frozen_hash(
        self, instance_class: InstanceClass, seed: int, path: int | None = None
    ) -> str | None:
        """Return what the instance's hash was when the suite was frozen; None if it was not."""
        return self._hashes.get(instance_class.name, {}).get(_draw_name(seed, path))


@dataclass(frozen=True)
class Drawn:
    """An instance of a suite.

    Parameters
    ----------
    instance_class
        Its class.
    seed
        The seed that drew it.
    path
        Number of its path on the network of the seed; None where the class has no paths.
    hash
        `instance_hash` of the instance.
    instance
        The instance.
    """

    instance_class: InstanceClass
    seed: int
    path: int | None
    hash: str
    instance: Instance


def read_suite(path: str | os.PathLike[str]) -> Suite:
    """Read a suite and its frozen hashes.

    Parameters
    ----------
    path
        Of the file, or the name of a shipped suite, such as "smoke".

    Raises
    ------
    FormatError
        The file is missing or not TOML, a key is unknown, a value out of range, or the hashes are
        of another suite or version.
    """
    file = find(path, "suite")
    suite = read_model(Suite, file)
    for entry in suite.methods:
        if ":" in entry.method:  # files are data: they run no code
            raise FormatError(
                file,
                f"methods: {entry.method!r} names code, which a suite may not; give it with "
                "--methods",
            )
    suite._path = file
    suite._hashes = _read_hashes(suite)
    return suite


def suite_from(table: Mapping[str, Any], path: Path) -> Suite:
    """Return a suite made of a table; messages about it name `path`.

    Raises
    ------
    FormatError
        As `read_suite`.
    """
    try:
        suite = validated(Suite, table)
    except ValueError as error:
        raise FormatError(path, str(error)) from None
    suite._path = path
    return suite


def changed(suite: Suite, changes: Mapping[str, Any]) -> Suite:
    """Return a suite with other values of its scenarios, by dotted key; its classes say them.

    What was frozen is of other instances: nothing of the new suite is.
    """
    if not changes:
        return suite
    table = suite.model_dump(exclude={"sweep"})
    for one in table["classes"]:
        one["name"] = named_by(one["name"], list(enumerate(changes.items())))
        one["point"] = {**one["point"], **changes}
    return suite_from(table, suite.file)


def chosen_entries(
    suite: Suite, methods: Iterable[str] | None, options: Mapping[str, Any] | None
) -> list[MethodEntry]:
    """Return methods by their labels in a suite or by their names, with more options.

    Parameters
    ----------
    suite
        The suite.
    methods
        Labels, or names of methods that the suite lacks; None for all of the suite.
    options
        Options for every method, those in `OWN_KEYS` too; its label says them.

    Raises
    ------
    ValueError
        An option is not for suites.
    """
    by_label = {entry.label: entry for entry in suite.methods}
    more = dict(options or {})
    own = {key: more.pop(key) for key in OWN_KEYS if key in more}
    added = "".join(f" {key}={_in_a_label(value)}" for key, value in (options or {}).items())
    entries = []
    for label in by_label if methods is None else methods:
        entry = by_label.get(label) or MethodEntry(method=label, label=label)
        changed = {
            **entry.model_dump(),
            **own,
            "label": f"{entry.label}{added}",
            "options": {**entry.options, **more},
        }
        entries.append(validated(MethodEntry, changed))
    return entries


def _in_a_label(value: Any) -> str:
    """Return a value as a label has it; of a path the last part, as a label has no slash."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.rstrip("/").rsplit("/", 1)[-1]


def hashes_path(suite: Suite) -> Path:
    """Return where the frozen hashes of a suite are."""
    return suite._path.with_suffix(".hashes.json")


def scenario_of(suite: Suite, instance_class: InstanceClass) -> Scenario:
    """Return the scenario of a class.

    The tables `scenario` of the suite and of the class are merged key by key, `library` as a
    whole. They are laid over the scenario that `base` names, if any: a file, relative to the suite,
    or a shipped scenario.

    Raises
    ------
    FormatError
        The result is no scenario, or the file that `base` names is none.
    """
    table = dict(suite.scenario)
    table = merged(table, instance_class.scenario)
    base = table.pop("base", None)
    # Files are named relative to the file that names them.
    table = _with_absolute_files(table, suite._path.parent)
    if base is not None:
        if not isinstance(base, str):
            raise FormatError(suite._path, f"scenario.base: {base!r}: expected a file name")
        path = find(base, "scenario", folder=suite._path.parent)
        table = merged(_with_absolute_files(read_toml(path), path.parent), table)
    if "name" not in instance_class.scenario:
        table["name"] = instance_class.name
    for key, value in instance_class.point.items():
        table = placed(table, key, value)
    try:
        return validated(Scenario, table)
    except ValueError as error:
        raise FormatError(suite._path, f"classes.{instance_class.name}.scenario.{error}") from None


def draw(
    suite: Suite,
    instance_class: InstanceClass,
    seed: int,
    path: int | None = None,
    *,
    check: bool = True,
) -> Drawn:
    """Draw an instance, and refuse it when it is not the one that was frozen.

    Parameters
    ----------
    suite, instance_class, seed, path
        The suite, one of its classes, one of its seeds, and one of its paths if it has any.
    check
        Compare with the frozen hash, where there is one.

    Raises
    ------
    FormatError
        The scenario is bad, or the generator has drifted: it draws another instance.
    """
    if instance_class.files is not None:
        instance = read_instance(suite.files_of(instance_class)[seed])
        return Drawn(instance_class, seed, None, instance_hash(instance), instance)
    with reading(suite._path):
        scenario = scenario_of(suite, instance_class)
        try:
            instance = scenario.generate(seed, path)
        except FormatError:
            raise
        except ValueError as error:
            where = f"classes.{instance_class.name}.scenario"
            raise FormatError(suite._path, f"{where}: {error}") from None
    drawn_hash, frozen = instance_hash(instance), suite.frozen_hash(instance_class, seed, path)
    if check and frozen is not None and drawn_hash != frozen:
        raise FormatError(
            suite._path,
            f"suite {suite.name!r} version {suite.version}, class {instance_class.name!r}, "
            f"{drawn_from(seed, path)}: the instance drawn has hash {drawn_hash}, frozen was "
            f"{frozen}; the generator or the scenario has changed, so results would not compare "
            "(a new version of the suite and --freeze make a new comparison)",
        )
    return Drawn(instance_class, seed, path, drawn_hash, instance)


@cache
def _number_of(path: Path, _changed_ns: int, _size: int) -> int:
    """Return a number made of an instance file's content, at most `LARGEST_SEED`."""
    return int(instance_hash(read_instance(path))[:8], 16)


def _draw_name(seed: int, path: int | None) -> str:
    return str(seed) if path is None else f"{seed}/{path}"


def draw_all(suite: Suite, *, check: bool = True) -> Iterator[Drawn]:
    """Draw every instance of a suite, one after another.

    Raises
    ------
    FormatError
        As `draw`, or two instances of the suite are the same.
    """
    seen: dict[str, str] = {}
    for instance_class in suite.classes:
        for seed, path in suite.draws(instance_class):
            drawn = draw(suite, instance_class, seed, path, check=check)
            where = f"class {instance_class.name!r}, {drawn_from(seed, path)}"
            if drawn.hash in seen:
                raise FormatError(suite._path, f"{where} is the same as {seen[drawn.hash]}")
            seen[drawn.hash] = where
            yield drawn


def freeze(suite: Suite) -> Path:
    """Write the hashes of all instances beside the suite; return where.

    Raises
    ------
    FormatError
        Frozen hashes of the same version would change: that takes a new version.
    """
    hashes: dict[str, dict[str, str]] = {}
    for drawn in draw_all(suite):
        of_class = hashes.setdefault(drawn.instance_class.name, {})
        of_class[_draw_name(drawn.seed, drawn.path)] = drawn.hash
    content = {"suite": suite.name, "version": suite.version, "hashes": hashes}
    path = hashes_path(suite)
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def instance_hash(instance: Instance) -> str:
    """Return a hash of an instance's content that every processor agrees on.

    Exponentials, sines and matrix products end in other last bits on other processors (with and
    without AVX-512, for instance), so that `Instance.content_hash`, which is of every bit, differs
    between machines. Here real numbers enter to five significant digits, complex ones relative to
    their modulus; whole numbers, truth values and names enter exactly. The name and the seed of an
    instance and the names of its nodes are not content, and neither is that it has one area or no
    deadlines.

    Parameters
    ----------
    instance
        The instance.
    """
    digest = hashlib.sha256()
    absent = {".areas": instance.area_count == 1, ".deadline": not len(instance.deadline)}
    left_out = {".name", ".seed", ".network.node_names"}
    left_out |= {name for name, lacks in absent.items() if lacks}
    for name, value in _content("", instance):
        if name in left_out or value is None:
            continue
        digest.update(name.encode() + b"=")
        array = np.asarray(value)
        if array.dtype.kind in "fc":
            array = _rounded(array)
        if array.dtype.kind in "OU":
            digest.update(json.dumps(array.tolist()).encode())
        else:
            digest.update(f"{array.dtype.str}|{array.shape}|".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _content(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not dataclasses.is_dataclass(value):
        yield place, value
        return
    for field in dataclasses.fields(value):
        yield from _content(f"{place}.{field.name}", getattr(value, field.name))


def _rounded(array: Any) -> Any:
    """Return the values as whole multiples of 2^e / SIGNIFICANT, and e: 2^e <= |z| < 2^(e + 1)."""
    exponent = np.frexp(np.where(np.isfinite(array), np.abs(array), 0.0))[1].astype(np.int64)
    scaled = np.where(np.isfinite(array), array, 0.0) * np.exp2(-exponent.astype(float))
    parts = [np.rint(SIGNIFICANT * part).astype(np.int64) for part in (scaled.real, scaled.imag)]
    infinite = np.isinf(array) * np.sign(np.real(array))
    return np.stack([*parts, exponent, infinite.astype(np.int64)])


def _read_hashes(suite: Suite) -> dict[str, dict[str, str]]:
    path = hashes_path(suite)
    if not path.exists():
        return {}
    content = read_json(path)
    try:
        if content["suite"] != suite.name:
            raise FormatError(path, f"is of suite {content['suite']!r}, not of {suite.name!r}")
        if content["version"] != suite.version:
            return {}  # of an earlier version, until the new one is frozen
        return {
            str(name): {str(seed): str(value) for seed, value in seeds.items()}
            for name, seeds in content["hashes"].items()
        }
    except (KeyError, TypeError, AttributeError):
        raise FormatError(path, "expected suite, version and hashes by class and seed") from None


def _with_absolute_files(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    absolute = dict(table)
    for section, key in (("library", "file"), ("channel", "file"), ("demand", "trace")):
        part = absolute.get(section)
        if isinstance(part, Mapping) and isinstance(part.get(key), str):
            library = section == "library"  # may be a shipped one
            path = find(part[key], "library", folder=folder) if library else folder / part[key]
            absolute[section] = {**part, key: str(path.resolve())}
    users = absolute.get("users") or {}
    motion = users.get("motion") if isinstance(users, Mapping) else None
    if isinstance(motion, Mapping) and isinstance(motion.get("file"), str):
        moved = {**motion, "file": str((folder / motion["file"]).resolve())}
        absolute["users"] = {**users, "motion": moved}
    return absolute
