"""`finecast show`: what is in a file, in words and as a picture."""

from __future__ import annotations

import zipfile
from typing import Any

import click
import numpy as np

from finecast.cli.common import (
    instance_for,
    json_option,
    output_file,
    print_json,
    print_table,
    say,
    set_option,
)
from finecast.cli.describe import (
    area_rows,
    describe_areas,
    describe_library,
    library_rows,
    model_rows,
    span,
)
from finecast.problem.areas import area_notes
from finecast.problem.files import FormatError, size_of
from finecast.problem.reception import gain_notes, places, without_channel
from finecast.problem.shipped import find
from finecast.problem.wording import counted, gigabytes


@click.command("show")
@click.argument("file")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="For a TOML scenario.")
@click.option("--solution", help="A solution of the instance, for its picture.")
@click.option("--instance", "of", help="For a solution: its instance, to say the plan in words.")
@click.option("--slot", type=click.IntRange(min=0), default=0, help="Slot to draw.")
@click.option("--plot", help="Picture to write: .png, .svg or .pdf.")
@set_option
@json_option
def command(
    file: str,
    seed: int,
    solution: str | None,
    of: str | None,
    slot: int,
    plot: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what is in FILE: a library (.json), scenario (.toml), instance or solution (.npz).

    FILE may be the name of a shipped scenario or library, such as tiny or vision.

    With --instance a solution is said in words: what is stored, what moves, what users wait.

    With --plot an instance or scenario is drawn: cells, users, links; with --solution also the
    caches and the slot as a Gantt chart. Of several areas: load and wait, what each waits for, and
    the slowest as a Gantt chart.
    """
    path = find(file, "scenario", "library")
    if plot is not None:
        from finecast.pictures.style import SUFFIXES

        output_file(plot, SUFFIXES)
    kind = _kind(path)
    if kind not in ("instance", "scenario") and (plot or solution):
        raise click.UsageError(
            f"--plot and --solution need an instance or scenario, not the {kind} {file}"
        )
    if solution and not plot:
        raise click.UsageError("--solution is for the picture, give --plot too")
    if of is not None and kind != "solution":
        raise click.UsageError(f"--instance is for a solution, not for the {kind} {file}")
    sentences: list[str] = []
    if kind == "library":
        from finecast.problem.library import read_library

        described = describe_library(read_library(path))
        rows = [*library_rows(described), *model_rows(described)]
    elif kind == "solution":
        described = _describe_solution(path)
        rows = [(name.replace("_", " "), str(value)) for name, value in described.items()]
        if as_json:
            described["decisions"] = _decisions(path)
        if of is not None:
            sentences, stored = _in_words(path, instance_for(of, seed, settings))
            described["in_words"] = sentences
            rows = [*stored, *rows]
    else:
        instance = instance_for(file, seed, settings)
        described = _describe_instance(instance)
        rows = _instance_rows(instance, described)
        if plot is not None:
            _draw(instance, solution, slot, plot)
            described["plot"] = plot
            rows.append(("picture", plot))
    if as_json:
        print_json({"kind": kind, **described})
    else:
        for sentence in sentences:
            say(sentence)
        print_table(f"{kind} {file}", rows)


def _kind(path: Any) -> str:
    if path.suffix == ".toml":
        return "scenario"
    if path.suffix == ".json":
        return "library"
    size_of(path)  # or a pipe would be waited for
    if not zipfile.is_zipfile(path):
        raise FormatError(path, "is no .toml, .json or .npz file of finecast")
    from finecast.problem.files import archive_format

    kind = archive_format(path).removeprefix("finecast-")
    if kind not in ("instance", "solution"):
        raise FormatError(path, f"holds a {kind!r}, expected an instance or a solution")
    return kind


def _describe_solution(path: Any) -> dict[str, Any]:
    from finecast.problem.solution import read_solution

    solution = read_solution(path)
    slots, nodes, blocks = solution.cache.shape
    return {
        "method": solution.method,
        "slots": slots,
        "nodes": nodes,
        "blocks": blocks,
        "cached_copies": int(solution.cache.sum()),
        "migrations": int(solution.received.sum()),
        "messages": sum(broadcast.messages for broadcast in solution.broadcasts),
        "modes": sum(broadcast.modes for broadcast in solution.broadcasts),
        **_describe_ways(solution),
        "planned_rates": solution.planned,
        "instance_hash": solution.instance_hash,
    }


def _in_words(path: Any, instance: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """Return a solution of an instance in sentences, and what each site stores."""
    from finecast.compare.planning.solution_words import solution_sentences, stored_rows
    from finecast.problem.solution import read_solution

    solution = read_solution(path)
    sentences = solution_sentences(instance, solution)
    if solution.instance_hash not in ("", instance.content_hash):
        sentences.append("The solution was made for another instance.")
    return sentences, stored_rows(instance, solution)


def _decisions(path: Any) -> dict[str, Any]:
    """Return all decisions of a solution file as plain rows."""
    from finecast.problem.decisions import rows
    from finecast.problem.solution import read_solution

    solution = read_solution(path)
    return {
        "cache": rows(solution, "cache"),
        "migrations": rows(solution, "migrations"),
        "messages": rows(solution, "messages"),
    }


def _describe_ways(solution: Any) -> dict[str, Any]:
    """Return how many messages go wide, and how many stay in how many areas; else nothing."""
    area = np.concatenate([broadcast.area for broadcast in solution.broadcasts])
    if not (area >= 0).any():
        return {}
    return {
        "wide_messages": int((area < 0).sum()),
        "local_messages": int((area >= 0).sum()),
        "areas_that_send": len(np.unique(area[area >= 0])),
    }


def _describe_instance(instance: Any) -> dict[str, Any]:
    network = instance.network
    strength = np.linalg.norm(instance.normalised_channel, axis=3) * np.sqrt(network.power)
    alone = np.log2(1 + strength.sum(axis=2) ** 2)
    return {
        "name": instance.name,
        "seed": instance.seed,
        "slots": instance.slots,
        "nodes": instance.nodes,
        "antennas": instance.antennas,
        "users": instance.users,
        "library": describe_library(instance.library),
        "storage_bytes": network.storage,
        "blocks_too_large": int(_above_storage(instance).sum()),
        "power_w": network.power,
        "bandwidth_hz": network.bandwidth,
        "noise_power_w": network.noise_power,
        "max_spectral_efficiency": network.max_spectral_efficiency,
        "spectral_efficiency_alone": np.percentile(alone, [10, 50, 90]),
        "without_channel": without_channel(instance),
        **describe_areas(instance),
        "notes": [*gain_notes(instance), *area_notes(instance.areas)],
        "requests": int((instance.requests >= 0).sum()),
        "distinct_models_per_slot": float(
            np.mean([len(np.unique(r[r >= 0])) for r in instance.requests])
        ),
        "delivery": instance.delivery,
        "schedule": instance.schedule,
        "instance_hash": instance.content_hash,
    }


def _instance_rows(instance: Any, described: dict[str, Any]) -> list[tuple[str, str]]:
    network = instance.network
    off_diagonal = network.backhaul_rate[~np.eye(instance.nodes, dtype=bool)]
    links = f"{span(off_diagonal / 1e9)} Gbit/s, " if len(off_diagonal) else ""
    unreached = described["without_channel"]
    low, middle, high = described["spectral_efficiency_alone"]
    return [
        (
            "size",
            f"{counted(instance.slots, 'slot')}, {counted(instance.users, 'user')}, "
            f"{counted(instance.nodes, 'node')} x {counted(instance.antennas, 'antenna')}",
        ),
        *area_rows(described),
        *library_rows(described["library"]),
        ("storage per node", f"{span(network.storage / 1e9)} GB"),
        *([("fit into no node", _too_large(instance))] if described["blocks_too_large"] else []),
        ("links between nodes", f"{links}cloud {span(network.cloud_rate / 1e9)} Gbit/s"),
        (
            "carrier",
            f"{network.bandwidth / 1e6:g} MHz, {span(network.power)} W per node, "
            f"noise {network.noise_power:.3g} W",
        ),
        (
            "one user, all nodes",
            f"{low:.1f} / {middle:.1f} / {high:.1f} bit/s/Hz at the 10th / "
            f"50th / 90th percentile, cap {network.max_spectral_efficiency:g}",
        ),
        *([("no channel from any node", f"to {places(unreached)}")] if len(unreached) else []),
        (
            "requests",
            f"{described['requests']}, "
            f"{described['distinct_models_per_slot']:.1f} distinct models per slot",
        ),
        (
            "requested bytes",
            gigabytes(float((instance.needed @ instance.library.block_size).sum()))
            + " of distinct blocks",
        ),
        ("delivery, schedule", f"{instance.delivery}, {instance.schedule}"),
        ("hash", described["instance_hash"]),
        *(("note", note) for note in described["notes"]),
    ]


def _above_storage(instance: Any) -> Any:
    """Return (J,) bool, the blocks that are larger than the storage of every node."""
    return instance.library.block_size > instance.network.storage.max()


def _too_large(instance: Any) -> str:
    above = _above_storage(instance)
    largest = gigabytes(float(instance.library.block_size.max()))
    return f"{counted(int(above.sum()), 'block')}, the largest of {largest}: never cached"


def _draw(instance: Any, solution: str | None, slot: int, plot: str) -> None:
    from finecast.pictures import overview, save_picture
    from finecast.problem.solution import read_solution

    decisions = None if solution is None else read_solution(solution)
    save_picture(overview(instance, decisions, slot), plot)
