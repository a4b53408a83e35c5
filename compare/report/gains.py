"""Gains of the full system over restricted ones, against what the reference paper claims.

A reduction is 1 - full / restricted on the same instance: of each system the least delay that the
methods run on both found. With the certified lower bound of the restricted system in the place
of its delay it is what no better method for the restricted system could undo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from finecast.compare.report.comparison import Comparison
from finecast.compare.report.statistics import Estimate, stratified_bootstrap
from finecast.compare.report.table import Column, Table, Value, shown
from finecast.compare.runs.records import Record
from finecast.problem.arrays import FloatArray
from finecast.solvers.registry import methods

Verdict = Literal[
    "reached", "agrees", "smaller here", "holds", "not shown", "the opposite", "too few instances"
]
FEWEST_PAIRS = 3
"""Below, no interval says anything."""
ALL_CLASSES = "all"


@dataclass(frozen=True)
class Claim:
    """One gain to look for; one of the next three fields says what takes it away or brings it.

    Parameters
    ----------
    name
        What against what.
    restrict
        Restrictions of the other side, as in `Record.restrict`.
    delivery, schedule
        Of the full side; the other side has another.
    claimed
        Reduction stated in the abstract of the reference paper (arXiv 2509.19341); None where it
        states no number of its own, and on other suites than `paper`.
    """

    name: str
    restrict: str = ""
    delivery: str = ""
    schedule: str = ""
    claimed: float | None = None


CLAIMS = (
    Claim("fine-grained against coarse-grained caching", "coarse", claimed=0.6786),
    Claim("robust against non-robust beams", "non-robust", claimed=0.3109),
    Claim("CoMP against single-cell delivery", "no-comp"),
    Claim("migration against none", "no-migration"),
    Claim("broadcast against unicast", "unicast"),
    Claim("all against coarse single-cell unicast", "coarse,no-comp,unicast"),
    Claim("spatial against sequential delivery", delivery="spatial"),
    Claim("pipelined against sequential schedule", schedule="pipelined"),
)
LEAST_CLAIMED_OVER_BASELINES = 0.2974

PAPER_SUITE = "paper"
"""Suite of the reference paper's setting."""


@dataclass(frozen=True, eq=False)
class Gain:
    """Reductions of one claim in one class, or in all.

    Parameters
    ----------
    claim
        What against what, and what was claimed.
    instance_class
        Its name, or `all`.
    reduction
        Mean over the pairs with a finite delay on both sides; None without any.
    certified
        Mean of 1 - full / (bound of the restricted system); None where bounds are missing.
    infinite
        Pairs in which only the restricted system has no finite delay.
    verdict
        What the interval says of the claim.
    """

    claim: Claim
    instance_class: str
    reduction: Estimate | None
    certified: float | None
    infinite: int
    verdict: Verdict


@dataclass(frozen=True)
class _Pair:
    instance_class: str
    full: float
    restricted: float
    bound: float


def gains(comparison: Comparison, rng: np.random.Generator) -> list[Gain]:
    """Return the gains of every claim that the runs speak of: over all classes, then in each.

    Parameters
    ----------
    comparison
        The runs shown.
    rng
        For the intervals.
    """
    pairs_of_claims = [(claim, _restriction_pairs(comparison, claim)) for claim in CLAIMS]
    pairs_of_claims += _learner_pairs(comparison)
    if any(r.suite != PAPER_SUITE for r in comparison.records):
        # What the paper claims it claims of its own setting; elsewhere the sign alone is looked at.
        pairs_of_claims = [(replace(claim, claimed=None), of) for claim, of in pairs_of_claims]
    all_gains = []
    for claim, pairs in pairs_of_claims:
        if not pairs:
            continue
        classes = tuple(dict.fromkeys(p.instance_class for p in pairs))
        for name in (ALL_CLASSES, *(classes if len(classes) > 1 else ())):
            chosen = [p for p in pairs if name in (ALL_CLASSES, p.instance_class)]
            all_gains.append(_gain(claim, name, chosen, rng))
    return all_gains


def verdict(reduction: Estimate | None, claimed: float | None) -> Verdict:
    """Return what an interval says of a claimed reduction, or of the direction without a number."""
    if reduction is None or reduction.count < FEWEST_PAIRS:
        return "too few instances"
    if reduction.high < 0:
        return "the opposite"
    if reduction.low <= 0:
        return "not shown"
    if claimed is None:
        return "holds"
    if reduction.low >= claimed:
        return "reached"
    return "agrees" if reduction.high >= claimed else "smaller here"


def gains_table(found: Iterable[Gain]) -> Table:
    """Return the gains as a table."""
    rows: list[tuple[Value, ...]] = [
        (
            g.claim.name,
            g.instance_class,
            g.reduction.count if g.reduction else 0,
            g.infinite,
            g.reduction,
            g.certified,
            g.claim.claimed,
            g.verdict,
        )
        for g in found
    ]
    return Table(
        "gains",
        "Gains of the full system and the reference paper's claims",
        "Reduction = 1 − full / restricted delay, mean over instances with its 95% interval; "
        "certified: with the bound of the restricted system in the place of its delay, which no "
        "better method for it could undo. A non-robust system guarantees no delay: the one it "
        "realises takes its place. No finite delay: instances on which only the restricted system "
        "has none, left out of the mean. Claimed: arXiv 2509.19341, whose scenario is not public.",
        (
            Column("claim", "Full against restricted"),
            Column("class", "Class"),
            Column("pairs", "Instances", "count"),
            Column("infinite", "No finite delay", "count"),
            Column("reduction", "Reduction", "percent"),
            Column("certified", "Certified at least", "percent"),
            Column("claimed", "Claimed", "percent"),
            Column("verdict", "Here"),
        ),
        tuple(rows),
    )


def gain_sentences(given: Iterable[Gain]) -> list[str]:
    """Return one sentence a claim: over all classes, and in the class where it is largest."""
    chosen = list(given)
    sentences = []
    for g in chosen:
        if g.instance_class != ALL_CLASSES:
            continue
        name = g.claim.name[0].upper() + g.claim.name[1:]
        if g.reduction is None:
            sentences.append(f"{name}: on no instance do both sides have a finite delay.")
            continue
        text = f"{name}: {_meant(g)}"
        if g.infinite:
            text += f", and {g.infinite} more instances on which only the full side has a delay"
        by_class = [
            (gain.reduction.value, gain)
            for gain in chosen
            if gain.claim is g.claim and gain is not g and gain.reduction is not None
        ]
        if by_class:
            largest = max(by_class, key=lambda pair: pair[0])[1]
            text += f". Most in class {largest.instance_class}: {_meant(largest)}"
        sentences.append(f"{text}.")
    return sentences


_SAYS: dict[Verdict, str] = {
    "reached": "the {claimed} that arXiv 2509.19341 claims are reached",
    "agrees": "in agreement with the {claimed} that arXiv 2509.19341 claims",
    "smaller here": "less than the {claimed} that arXiv 2509.19341 claims, which do not hold here",
    "holds": "it helps",
    "not shown": "no gain is shown",
    "the opposite": "the opposite of a gain",
    "too few instances": "too few instances to say more",
}


def _meant(gain: Gain) -> str:
    assert gain.reduction is not None
    said = _SAYS[gain.verdict].format(claimed=shown(gain.claim.claimed, "percent"))
    return f"{shown(gain.reduction, 'percent')} less delay, {said}"


def _gain(claim: Claim, name: str, pairs: list[_Pair], rng: np.random.Generator) -> Gain:
    finite = [p for p in pairs if np.isfinite(p.full) and np.isfinite(p.restricted)]
    finite = [p for p in finite if p.restricted > 0]
    reduction = None
    if finite:
        reduction = stratified_bootstrap(
            [1 - p.full / p.restricted for p in finite],
            [p.instance_class for p in finite],
            _mean,
            rng,
        )
    bounded = bool(finite) and all(p.bound > 0 for p in finite)
    return Gain(
        claim,
        name,
        reduction,
        float(np.mean([1 - p.full / p.bound for p in finite])) if bounded else None,
        sum(np.isfinite(p.full) and np.isinf(p.restricted) for p in pairs),
        verdict(reduction, claim.claimed),
    )


def _restriction_pairs(comparison: Comparison, claim: Claim) -> list[_Pair]:
    """Pair the systems on every instance that some method ran in both."""

    sides: dict[tuple[str, ...], tuple[list[Record], list[Record]]] = {}
    same: tuple[str, ...]
    for r in comparison.records:
        if r.restrict not in ("", claim.restrict):
            continue
        if claim.restrict:
            same, is_full = (r.instance_hash, r.delivery, r.schedule), not r.restrict
        elif claim.delivery:
            same, is_full = (r.instance_hash, r.schedule), r.delivery == claim.delivery
        else:
            same, is_full = (r.instance_hash, r.delivery), r.schedule == claim.schedule
        sides.setdefault(same, ([], []))[0 if is_full else 1].append(r)
    pairs = []
    for full, restricted in sides.values():
        shared = {r.method for r in full} & {r.method for r in restricted}
        if not shared:
            continue
        pairs.append(
            _Pair(
                full[0].instance_class,
                _least(full, shared, _delay),
                _least(restricted, shared, _realised if claim.restrict == "non-robust" else _delay),
                max(
                    (
                        r.lower_bound
                        for r in restricted
                        if r.bound_kind == "certified"
                        and r.lower_bound is not None
                        and claim.restrict != "non-robust"  # bounds what is planned, not realised
                    ),
                    default=0.0,
                ),
            )
        )
    return pairs


def _learner_pairs(comparison: Comparison) -> list[tuple[Claim, list[_Pair]]]:
    """Pair every learned method with every online method that is not, in the full system."""
    registry = methods()
    learned, baselines = [], []
    for label in comparison.labels:
        run = comparison.of(label)[0]
        method = registry.get(run.method)
        if run.restrict or run.delivery != "sequential":
            continue
        if (method and method.needs_training) or any(r.train_s > 0 for r in comparison.of(label)):
            learned.append(label)
        elif method and method.setting == "online":
            baselines.append(label)
    delay = comparison.mean_delay
    column = {label: i for i, label in enumerate(comparison.labels)}
    claims = []
    for learner in learned:
        for baseline in baselines:
            ours, theirs = delay[:, column[learner]], delay[:, column[baseline]]
            pairs = [
                _Pair(name, float(a), float(b), 0.0)
                for name, a, b in zip(comparison.instance_class, ours, theirs, strict=True)
                if not np.isnan(a + b)
            ]
            claim = Claim(
                f"{learner} (learned) against {baseline}", claimed=LEAST_CLAIMED_OVER_BASELINES
            )
            claims.append((claim, pairs))
    return claims


def _least(runs: list[Record], of: set[str], delay: Callable[[Record], float | None]) -> float:
    delays = (delay(r) for r in runs if r.method in of)
    return min((d for d in delays if d is not None), default=np.inf)


def _delay(run: Record) -> float | None:
    return run.delay


def _realised(run: Record) -> float | None:
    return run.realised_delay


def _mean(values: FloatArray) -> FloatArray:
    return np.asarray(values.mean(axis=-1))
