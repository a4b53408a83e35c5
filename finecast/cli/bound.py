"""`finecast bound`: the certified lower bound alone, or the online bound of a scenario."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from finecast.cli.common import (
    json_option,
    load_instance,
    path_option,
    print_json,
    print_table,
    progress_bar,
    say,
    set_option,
    settings_of,
    with_settings,
    words,
    workers_options,
)
from finecast.problem.files import FormatError, concerning, reading
from finecast.problem.shipped import find
from finecast.problem.wording import percent, seconds

if TYPE_CHECKING:
    from finecast.solvers.online_figures import Estimate, OnlineBound


@click.command("bound")
@click.argument("instance")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="For a TOML scenario.")
@path_option
@click.option(
    "--online",
    is_flag=True,
    help="Bound the mean delay of all online methods on a scenario; see docs/online.md.",
)
@click.option(
    "--networks",
    type=click.IntRange(min=1),
    help="With --online: networks, of seeds --seed, --seed + 1, ...  [default: 4]",
)
@click.option(
    "--paths",
    type=click.IntRange(min=1),
    help="With --online: paths of requests and fading on each network.  [default: 16]",
)
@click.option(
    "--kappa",
    help="With --online: weight of the penalties; any gives a bound, 0 the hindsight bound, auto "
    "the best on training paths.  [default: 1]",
)
@click.option(
    "--unknown-positions",
    is_flag=True,
    help="With --online: bound too the methods that do not know before slot 0 where users are.",
)
@click.option(
    "--methods",
    metavar="NAMES",
    help="With --online: methods to play on every path, as in rolling,mpc, for their distance.",
)
@click.option(
    "--time-limit",
    type=float,
    help="With --online: seconds after which no further path is begun.",
)
@workers_options(
    "For several areas: processes that take areas side by side, for the same bound.",
    "they are taken",
)
@set_option
@json_option
def command(
    instance: str,
    seed: int,
    draw: int | None,
    online: bool,
    networks: int | None,
    paths: int | None,
    kappa: str | None,
    unknown_positions: bool,
    methods: str | None,
    time_limit: float | None,
    workers: int,
    engine: Any,
    scheduler: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compute a certified lower bound on the delay of INSTANCE, whatever the decisions.

    With --online INSTANCE is a scenario, and the bound is one on the mean delay of every method
    that does not know the future.
    """
    given: dict[str, Any] = {
        "networks": networks,
        "paths": paths,
        "kappa": kappa,
        "unknown_positions": unknown_positions or None,
        "methods": methods,
        "time_limit": time_limit,
    }
    given = {name: value for name, value in given.items() if value is not None}
    crew = {"workers": workers, "engine": engine, "scheduler": scheduler}
    if online:
        if crew != {"workers": 1, "engine": "local", "scheduler": None}:
            raise ValueError("--workers, --engine, --scheduler: not with --online")
        if draw is not None:
            raise ValueError("--path: not with --online, which takes many paths, see --paths")
        _online(instance, seed, settings, as_json, given)
        return
    if given:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')}: only with --online")
    _certified(instance, seed, draw, settings, as_json, crew)


def _certified(
    instance: str,
    seed: int,
    draw: int | None,
    settings: tuple[str, ...],
    as_json: bool,
    crew: dict[str, Any],
) -> None:
    """Print the certified bound of one instance."""
    from finecast.problem.reception import gain_notes, unserved
    from finecast.solvers.bounds import certified_lower_bound

    changes, options = settings_of(settings)
    problem, unknown = with_settings(load_instance(instance, seed, draw, changes), options)
    restrict = unknown.pop("restrict", "")
    if unknown:
        raise ValueError(
            f"--set: {next(iter(unknown))!r} is unknown, expected a key of the scenario as in "
            "users.count, delivery, schedule or restrict"
        )
    began = time.perf_counter()
    with concerning(instance, "restrict", *crew), progress_bar() as tell:
        bound = certified_lower_bound(problem, restrict=restrict, callback=tell, **crew)
    wall_s = time.perf_counter() - began
    reason = unserved(problem) if math.isinf(bound) else ""
    notes = [*filter(None, [reason]), *gain_notes(problem)]
    if as_json:
        print_json(
            {
                "lower_bound": bound,
                "bound_kind": "certified",
                "wall_s": wall_s,
                "notes": notes,
                "instance_hash": problem.content_hash,
            }
        )
    else:
        print_table(
            f"{problem.name or 'instance'}, seed {problem.seed}",
            [
                ("lower bound", f"{seconds(bound)} (certified)"),
                ("mean per slot", seconds(bound / problem.slots)),
                ("time", f"{wall_s:.2f} s wall"),
                *(("note", note) for note in notes),
            ],
        )


def _online(
    path: str, seed: int, settings: tuple[str, ...], as_json: bool, given: dict[str, Any]
) -> None:
    """Print the online bound of a scenario; exit code 130 after Ctrl-C, with what there is."""
    from finecast.problem.scenario import read_scenario
    from finecast.solvers.online_bound import online_bound
    from finecast.solvers.signals import ctrl_c_keeps_the_best

    file = find(path, "scenario")
    if file.suffix != ".toml":
        raise FormatError(file, "is an instance, --online needs a scenario, which has many paths")
    changes, others = settings_of(settings)
    for name in others:
        if name != "schedule":
            raise ValueError(
                f"--set: {name!r} is not allowed with --online, expected schedule or a key of the "
                "scenario as in users.count"
            )
    scenario = read_scenario(file).with_({**changes, **others})
    if "kappa" in given:
        given["kappa"] = _kappa(given["kappa"])
    if "methods" in given:
        given["methods"] = words("--methods", given["methods"])
    with reading(file):
        scenario.generate(seed)  # what is wrong with the scenario is said with its name
    with progress_bar(time_left=True) as tell, ctrl_c_keeps_the_best():
        found = online_bound(scenario, seed=seed, callback=tell, **given)
    if as_json:
        print_json(found.as_dict())
    else:
        print_table(f"{scenario.name}, online", _rows(found))
        if len(found.figures) < found.asked:
            say(_partial(found))
    if found.ended == "interrupted":
        sys.exit(130)


def _kappa(text: str) -> float | str:
    """Return the weight that a person wrote.

    Raises
    ------
    ValueError
        It is no number, nor auto.
    """
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise ValueError(f"--kappa: {text!r} is not allowed, must be a number or auto") from None


def _rows(found: OnlineBound) -> list[tuple[str, str]]:
    """Return the figures for people."""
    bound = found.online.mean
    seeds = list(dict.fromkeys(path.network for path in found.figures))
    spread = "95 %" if found.online.interval else "one path: no interval"
    rows = [
        ("online bound", f"{_with_interval(found.online)} ({spread}, certified on every path)"),
        ("hindsight bound", _with_interval(found.hindsight)),
        ("value of information", _with_interval(found.value_of_information)),
        ("paths", f"{len(found.figures)} on {len(seeds)} networks, seeds from {seeds[0]}"),
        ("kappa", ", ".join(f"{k:g}" for k in dict.fromkeys(p.kappa for p in found.figures))),
    ]
    unknown, value = found.unknown, found.value_of_positions
    if unknown is not None and value is not None:
        rows[1:1] = [("unknown positions", _with_interval(unknown))]
        rows.insert(4, ("value of positions", _with_interval(value)))
    for method in found.gaps:
        gap = found.gap(method)
        rows.append((method, f"{_with_interval(gap)} above ({percent(gap.mean / bound)})"))
    rows.append(("time", f"{found.wall_s:.1f} s wall, {found.cpu_s:.1f} s CPU"))
    return rows


def _with_interval(estimate: Estimate) -> str:
    if estimate.interval is None:
        return seconds(estimate.mean)
    low, high = estimate.interval
    return f"{seconds(estimate.mean)}, {seconds(low)} to {seconds(high)}"


def _partial(found: OnlineBound) -> str:
    why = "Ctrl-C" if found.ended == "interrupted" else "the time limit"
    return (
        f"{why}: the means are of the first {len(found.figures)} of {found.asked} paths; "
        "which they are does not depend on their bounds"
    )
