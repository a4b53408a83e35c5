"""Delay of the full system against restricted ones, on the vision scenarios, with certified gaps.

    python3 benchmarks/gains.py -o gains.jsonl           # runs what the file lacks, prints tables
    python3 benchmarks/gains.py -o gains.jsonl --json    # the same as JSON
    python3 benchmarks/gains.py --studies storage --seeds 2 --time-limit 1

Every run is one JSON line: a setting, a system (a set of restrictions), a seed. A reduction is
1 - full / restricted, both delays achieved; `least` puts the certified lower bound of the
restricted system in the place of its delay, so that no better method for it could undo the claim.
A non-robust system has no guaranteed delay: the delay that it realises takes its place.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch

from finecast.problem.arrays import ComplexArray
from finecast.problem.channel import draw_true_channel
from finecast.problem.evaluation import evaluate
from finecast.problem.families import VISION, FamilySpec, build_family
from finecast.problem.instance import Instance
from finecast.problem.library import ModelLibrary, combine
from finecast.problem.scenario import FamilySection, LibrarySection, read_scenario
from finecast.problem.sinr import rate, worst_case_sinr
from finecast.problem.solution import Solution
from finecast.solvers.restrictions import restricted_instance
from finecast.solvers.result import relative_gap
from finecast.solvers.solve import solve, versions

SCENARIOS = Path(__file__).resolve().parents[1] / "data" / "scenarios"
CAP = 7.4063
"""bit/s/Hz, top of the 5G NR 256-QAM table."""
TRUTHS = 20
"""Random true channels per instance over which a realised delay is averaged."""
MARGINS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
"""Shares by which a non-robust plan may lower its rates to fail less often."""
LARGEST_GAP, EXACT_S = 0.01, 20.0
"""Above this gap the method `exact` goes on from the answer, for at most so many seconds."""
INSIDE = 1.0 - 1e-9
"""An adversarial channel stays this far within its ball, for rounding."""

FULL = "full"
TODAY = "coarse+no-comp+unicast"
SYSTEMS = (
    FULL,
    "coarse",
    "no-migration",
    "no-comp",
    "unicast",
    "non-robust",
    "coarse+no-migration",
    "no-comp+unicast",
    TODAY,
)


@dataclass(frozen=True)
class Setting:
    """One class of instances.

    Parameters
    ----------
    freeze
        Share of each backbone's body units that its task variants share; 1: only heads differ.
    storage_gb
        Of every node.
    error
        Radius of the CSI error balls relative to the norm of the channel.
    cap
        Largest spectral efficiency, bit/s/Hz; None for none.
    slots
        1: vision-small; more: vision-horizon cut to that many.
    users
        K.
    """

    freeze: float = 0.75
    storage_gb: float = 4.0
    error: float = 0.05
    cap: float | None = CAP
    slots: int = 1
    users: int = 12


STORAGE_GB, FREEZE, ERROR = (2.0, 4.0, 6.0, 8.0), (0.5, 0.75, 0.9, 1.0), (0.0, 0.05, 0.1, 0.2)
EVERYTHING_GB = 30.0
"""Holds all models whole: what is left of the gain over `coarse` is air time."""

Cells = list[tuple[Setting, tuple[str, ...]]]
STUDIES: dict[str, Cells] = {
    "storage": [(Setting(storage_gb=s), SYSTEMS) for s in (*STORAGE_GB, EVERYTHING_GB)],
    "freeze": [(Setting(freeze=f), SYSTEMS) for f in FREEZE],
    "coarse": [
        (Setting(freeze=f, storage_gb=s), (FULL, "coarse")) for f in FREEZE for s in STORAGE_GB
    ],
    "error": [
        (Setting(error=e), (FULL, "coarse", "no-comp", "unicast", "non-robust", TODAY))
        for e in ERROR
    ],
    "robust": [
        (Setting(error=e, cap=cap), (FULL, "non-robust")) for cap in (CAP, None) for e in ERROR[1:]
    ],
    "users": [
        (Setting(freeze=f, storage_gb=2.0, users=k), (FULL, "coarse", TODAY))
        for f in (0.75, 1.0)
        for k in (12, 24, 48)
    ],
    "horizon": [(Setting(slots=4, storage_gb=s), SYSTEMS) for s in (2.0, 4.0, 8.0)],
    "horizon-freeze": [
        (Setting(slots=4, storage_gb=2.0, freeze=f), (FULL, "coarse")) for f in FREEZE
    ],
}


def families(freeze: float) -> tuple[FamilySpec, ...]:
    """Return the shipped vision families, all with one freeze ratio."""
    return tuple(replace(spec, freeze_ratio=freeze) for spec in VISION)


def library(freeze: float) -> ModelLibrary:
    """Return the vision models with one freeze ratio."""
    return combine([build_family(spec) for spec in families(freeze)])


def draw(setting: Setting, seed: int) -> Instance:
    """Return the instance of a setting and seed; all but the setting is from the scenario file."""
    name = "vision-small" if setting.slots == 1 else "vision-horizon"
    base = read_scenario(SCENARIOS / f"{name}.toml")
    sections = [FamilySection.model_validate(asdict(spec)) for spec in families(setting.freeze)]
    changed = {
        "slots": setting.slots,
        "library": LibrarySection(families=sections),
        "nodes": base.nodes.model_copy(update={"storage_gb": setting.storage_gb}),
        "radio": base.radio.model_copy(update={"max_spectral_efficiency": setting.cap}),
        "channel": base.channel.model_copy(update={"error": setting.error}),
        "users": base.users.model_copy(update={"count": setting.users}),
    }
    return base.model_copy(update=changed).generate(seed)


def adversarial_channel(instance: Instance, solution: Solution) -> ComplexArray:
    """Return (T, K, N, A) true channels, in the balls, worst for each user's longest beam.

    For beam w with amplitude y = sum_n h_n^H w_n the worst error of node n is
    d_n = -e_n conj(y / |y|) w_n / |w_n|, cut where the sum would pass zero. One channel cannot be
    worst for several beams at once: for a user's other messages it is just some channel.
    """
    true = np.array(instance.channel_estimate)
    for t, broadcast in enumerate(solution.broadcasts):
        for k in np.flatnonzero(broadcast.users.any(axis=0)):
            heard = np.flatnonzero(broadcast.users[:, k])
            # Cached and migrated blocks may go out with one and the same beam: add them up.
            beams = [broadcast.beam[broadcast.message == i][0] for i in heard]
            length = [broadcast.duration[broadcast.message == i].sum() for i in heard]
            total = [
                sum(x for b, x in zip(beams, length, strict=True) if np.array_equal(a, b))
                for a in beams
            ]
            w = beams[int(np.argmax(total))]
            y = np.vdot(true[t, k], w)
            norm = np.linalg.norm(w, axis=1, keepdims=True)
            error = instance.channel_error[t, k][:, None]
            share = min(1.0, abs(y) / max(float((error * norm).sum()), 1e-300))
            with np.errstate(invalid="ignore"):
                towards = np.where(norm > 0, w / norm, 0.0)
            true[t, k] -= INSIDE * share * error * np.conj(y / abs(y)) * towards
    return true


def backed_off_delay(instance: Instance, solution: Solution) -> float:
    """Return s: migration, and every message at the guaranteed rate of its own beam."""
    total = evaluate(instance, solution).slot_migration.sum()
    size = instance.library.block_size
    for t, broadcast in enumerate(solution.broadcasts):
        sinr = worst_case_sinr(
            instance.normalised_channel[t],
            instance.normalised_error[t],
            broadcast.beam,
            np.eye(len(broadcast.beam), dtype=bool),
        )
        worst = np.where(broadcast.users[broadcast.message].T, sinr, np.inf).min(axis=0)
        network = instance.network
        reached = rate(worst, network.bandwidth, network.max_spectral_efficiency)
        with np.errstate(divide="ignore"):
            total += (8.0 * broadcast.message_size(size)[broadcast.message] / reached).sum()
    return float(total)


def slowed(solution: Solution, margin: float) -> Solution:
    """Return the plan with all rates lowered by a share."""
    return replace(
        solution,
        broadcasts=tuple(
            replace(b, rate=b.rate * (1.0 - margin), duration=b.duration / (1.0 - margin))
            for b in solution.broadcasts
        ),
    )


def realised(instance: Instance, solution: Solution, seed: int) -> dict[str, Any]:
    """Return the realised delays of a plan, s: random truths at each margin, and the worst case."""
    rng = np.random.default_rng(seed)
    worlds = [
        replace(
            instance,
            channel_true=draw_true_channel(rng, instance.channel_estimate, instance.channel_error),
        )
        for _ in range(TRUTHS)
    ]
    at_margin = [
        float(np.mean([evaluate(w, slowed(solution, m)).realised_delay for w in worlds]))
        for m in MARGINS
    ]
    aimed = replace(instance, channel_true=adversarial_channel(instance, solution))
    return {
        "random": at_margin[0],
        "random_at_margin": at_margin,
        "adversarial": evaluate(aimed, solution).realised_delay,
        "backed_off": backed_off_delay(instance, solution),
    }


def measure(
    setting: Setting, system: str, seed: int, time_limit: float, gap: float, rate_cache: str
) -> dict[str, Any]:
    """Solve one instance in one system and return what the tables need."""
    instance = draw(setting, seed)
    restrictions = frozenset(system.split("+")) - {FULL}
    options: dict[str, Any] = {"restrict": sorted(restrictions), "rate_cache": rate_cache}
    result = solve(instance, "lagrangian", time_limit=time_limit, gap=gap, **options)
    if result.solution is None or result.evaluation is None:
        raise RuntimeError(f"{setting} {system} seed {seed}: {result.termination}, no solution")
    if relative_gap(result.evaluation.planned_delay, result.lower_bound) > LARGEST_GAP:
        proof = solve(
            instance, "exact", time_limit=EXACT_S, gap=gap, start=result.solution, **options
        )
        if (
            proof.evaluation is not None
            and proof.evaluation.planned_delay <= result.evaluation.planned_delay
            and proof.lower_bound >= result.lower_bound
        ):
            result = proof
    assert result.solution is not None
    assert result.evaluation is not None
    judged = restricted_instance(instance, restrictions)
    requested = instance.requests[instance.requests >= 0]
    row: dict[str, Any] = {
        **asdict(setting),
        "system": system,
        "seed": seed,
        "delay": result.evaluation.planned_delay,
        "lower_bound": result.lower_bound,
        "gap": relative_gap(result.evaluation.planned_delay, result.lower_bound),
        "method": result.method,
        "bound_kind": result.bound_kind,
        "termination": result.termination,
        "migration": float(result.evaluation.slot_migration.sum()),
        "cloud_gb": result.evaluation.cloud_bytes / 1e9,
        "library_gb": float(instance.library.block_size.sum()) / 1e9,
        "unstorable": float(
            np.mean(instance.library.model_size[requested] > instance.network.storage.max())
        ),
        "wall_s": result.wall_s,
    }
    if system == "non-robust":
        row |= realised(judged, result.solution, seed)
    return row


KINDS = {"non-robust": ("random", "adversarial", "backed_off")}
"""Delays to compare with, where it is not the delay of the plan."""


def spread(gain: np.ndarray) -> dict[str, float]:
    """Return mean, least and largest of reductions, and in how many the other delay is infinite."""
    finite = gain[gain < 1]
    if not len(finite):
        return {"infinite": float(len(gain))}
    return {
        "mean": float(finite.mean()),
        "min": float(finite.min()),
        "max": float(finite.max()),
        "infinite": float(len(gain) - len(finite)),
    }


def reductions(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return per setting and system the reduction by the full system: mean, range, certified.

    `least` is the mean of 1 - full / (bound of the restricted system), `most` that of
    1 - (bound of the full system) / restricted: the reduction between the two optima is between.
    A non-robust system is compared at the delays that it realises, which have no bound:
    with random true channels, with rates lowered by the margin that suits it best there, with
    adversarial true channels, and with its beams at their guaranteed rates (`backed_off`).
    """
    rows = list(rows)
    keys = list(asdict(Setting()))
    full = {(*(r[k] for k in keys), r["seed"]): r for r in rows if r["system"] == FULL}
    cells: dict[tuple[Any, ...], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for r in rows:
        at = tuple(r[k] for k in keys)
        whole = full.get((*at, r["seed"]))
        if r["system"] != FULL and whole is not None:
            cells.setdefault((*at, r["system"]), []).append((whole, r))
    summary = []
    for (*place, system), pairs in cells.items():
        entry = dict(zip(keys, place, strict=True)) | {"system": system, "seeds": len(pairs)}
        for kind in KINDS.get(system, ("delay",)):
            gain = np.array([1 - whole["delay"] / r[kind] for whole, r in pairs])
            entry[kind] = spread(gain)
        if system == "non-robust":
            at_margin = np.array([r["random_at_margin"] for _, r in pairs])  # (seeds, margins)
            whole_delay = np.array([w["delay"] for w, _ in pairs])
            gains = 1 - whole_delay[:, None] / at_margin
            best = int(gains.mean(axis=0).argmin())
            entry["best_margin"] = spread(gains[:, best]) | {"margin": MARGINS[best]}
        if system != "non-robust":
            entry["least"] = float(np.mean([1 - w["delay"] / r["lower_bound"] for w, r in pairs]))
            entry["most"] = float(np.mean([1 - w["lower_bound"] / r["delay"] for w, r in pairs]))
        entry["gap"] = max(max(w["gap"], r["gap"]) for w, r in pairs)
        entry["unstorable"] = float(np.mean([r["unstorable"] for _, r in pairs]))
        entry["library_gb"] = pairs[0][0]["library_gb"]
        entry["full_delay"] = float(np.mean([w["delay"] for w, _ in pairs]))
        entry["full_migration"] = float(np.mean([w["migration"] for w, _ in pairs]))
        entry["restricted_delay"] = float(np.mean([r["delay"] for _, r in pairs]))
        entry["restricted_migration"] = float(np.mean([r["migration"] for _, r in pairs]))
        summary.append(entry)
    return summary


def table(cells: Cells, summary: list[dict[str, Any]]) -> str:
    """Return a Markdown table: settings down, systems across, mean (min to max) in percent."""
    keys = [k for k in asdict(Setting()) if len({asdict(s)[k] for s, _ in cells}) > 1]
    columns = [
        (system, kind)
        for system in cells[0][1]
        if system != FULL
        for kind in (
            ("random", "best_margin", "adversarial", "backed_off")
            if system == "non-robust"
            else ("delay",)
        )
    ]
    names = [s if kind == "delay" else f"{s}, {kind.replace('_', ' ')}" for s, kind in columns]
    heads = [*keys, "full, s", *names, "largest gap"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    slack = 0.0
    for setting, _ in cells:
        found = {
            e["system"]: e for e in summary if all(e[k] == v for k, v in asdict(setting).items())
        }
        if not found:
            continue
        used = [found[system] for system, _ in columns if system in found]
        slack = max([slack, *(e["delay"]["mean"] - e["least"] for e in used if "least" in e)])
        row = [str(asdict(setting)[k]) for k in keys]
        row.append(f"{used[0]['full_delay']:.0f}")
        row += [shown(found.get(system, {}).get(kind)) for system, kind in columns]
        row.append(f"{100 * max(e['gap'] for e in used):.2f}")
        lines.append("| " + " | ".join(row) + " |")
    lines.append(
        f"\nAgainst bounds in place of delays: means at most {100 * slack:.2f} points less."
    )
    return "\n".join(lines)


def shown(gain: dict[str, float] | None) -> str:
    """Return 'mean (min to max)' in percent."""
    if gain is None:
        return ""
    infinite = f"{gain['infinite']:.0f} infinite" if gain["infinite"] else ""
    if "mean" not in gain:
        return infinite
    mean, low, high = (100 * gain[part] for part in ("mean", "min", "max"))
    margin = f", margin {gain['margin']:g}" if "margin" in gain else ""
    return f"{mean:.1f} ({low:.0f} to {high:.0f}){margin}{', ' + infinite if infinite else ''}"


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--studies", default=",".join(STUDIES), help="some of the default, commas")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1, 2, ...")
    parser.add_argument("--time-limit", type=float, default=3.0, help="seconds a run")
    parser.add_argument("--gap", type=float, default=0.003, help="a run may stop at this gap")
    parser.add_argument("-o", "--output", help="JSON lines; runs found there are not repeated")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = options.studies.split(",")
    if unknown := sorted(set(chosen) - set(STUDIES)):
        parser.error(f"--studies: {unknown[0]!r} is unknown, known are {', '.join(STUDIES)}")
    torch.set_num_threads(1)
    target = Path(options.output) if options.output else None
    lines = target.read_text().splitlines() if target and target.exists() else []
    rows = [json.loads(line) for line in lines]
    made_with = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "versions": versions(),
        "time_limit": options.time_limit,
        "asked_gap": options.gap,
    }
    wanted = {
        (setting, system, seed): None
        for seed in range(1, options.seeds + 1)
        for study in chosen
        for setting, systems in STUDIES[study]
        for system in systems
    }
    keys = [*asdict(Setting()), "system", "seed"]
    done = {tuple(row[key] for key in keys) for row in rows}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as rate_cache:
        for setting, system, seed in wanted:
            if (*asdict(setting).values(), system, seed) in done:
                continue
            row = measure(setting, system, seed, options.time_limit, options.gap, rate_cache)
            rows.append(row | made_with)
            if target:
                with target.open("a") as stream:
                    stream.write(json.dumps(rows[-1]) + "\n")
            print(
                f"{time.perf_counter() - began:6.0f} s  seed {seed}  {system:24} "
                f"{row['delay']:8.2f} s, gap {row['gap']:.2%}  {setting}",
                file=sys.stderr,
                flush=True,
            )
    asked = {(*asdict(s).values(), system, seed) for s, system, seed in wanted}
    rows = [row for row in rows if tuple(row[key] for key in keys) in asked]
    summary = reductions(rows)
    if options.json:
        print(json.dumps({"reductions": summary, **made_with}, indent=2))
        return
    for study in chosen:
        print(f"\n## {study}\n\n{table(STUDIES[study], summary)}")


if __name__ == "__main__":
    main()
