"""A plan in plain sentences: the answer first, then what it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from finecast.compare.planning.figures import NetworkPlan, Option, SitePlan, Spread
from finecast.problem.wording import counted

MOVES_NAMED = 3
"""Largest moves that a sentence names."""


def sentences(plan: NetworkPlan) -> list[str]:
    """Return what a plan says; the first sentence is the answer.

    Parameters
    ----------
    plan
        The plan.
    """
    said = [
        answer(plan),
        *waiting(plan),
        *side_by_side(plan),
        *moving(plan),
        *buying(plan),
        *growing(plan),
        sure(plan),
    ]
    if plan.interrupted:
        said.append(
            f"The computation was ended early: {counted(plan.draws, 'draw')} of demand "
            f"{'is' if plan.draws == 1 else 'are'} counted, and what is not shown was not reached."
        )
    return said


def answer(plan: NetworkPlan) -> str:
    """Return the answer in one sentence."""
    stored = sum(site.stored_bytes for site in plan.sites)
    copies = int(plan.cache.sum())
    today = option_of(plan, "whole-models-planned")
    against = ""
    if today is not None and today.wait.mean > 0:
        share = 1.0 - plan.wait.mean / today.wait.mean
        less = f"{100 * abs(share):.0f} % {'less' if share >= 0 else 'more'}"
        against = f", {less} than if sites stored whole models, as is usual today"
    return (
        f"Store {gb(stored)} of model parts ({copies} copies) at "
        f"{counted(len(plan.sites), 'site')} as in the table: a user then waits "
        f"{s(plan.wait.mean)} in the mean{against}."
    )


def waiting(plan: NetworkPlan) -> list[str]:
    """Return what users wait."""
    said = f"Of 100 users 95 have their model within {s(plan.wait_p95.mean)}; a round of requests "
    if plan.areas:
        said += (
            f"takes {interval(plan.slot_delay)}, counted for every user until all users of its "
            "area are served, in the mean"
        )
        if plan.slowest_area is not None:
            said += f", and the slowest area of a round takes {s(plan.slowest_area.mean)}"
        said += "."
    else:
        said += f"takes {interval(plan.slot_delay)} until its last user is served."
    if plan.in_time is not None:
        within = "" if plan.deadline_s is None else f" of {s(plan.deadline_s)}"
        said += f" {100 * plan.in_time.mean:.0f} % of the requests are served within the deadline"
        said += f"{within}."
    return [said]


def side_by_side(plan: NetworkPlan) -> list[str]:
    """Return how the areas of a city send beside one another; nothing with one area."""
    if not plan.areas:
        return []
    local = sum(area.sent_bytes for area in plan.areas)
    total = local + plan.wide_bytes
    share = 100 * plan.wide_bytes / total if total else 0.0
    said = (
        f"The {len(plan.areas)} areas send at the same time. Of what is sent, {share:.0f} % goes "
        "to several areas at once, by their sites together, and the rest stays within an area"
    )
    if plan.disturbance_db is not None:
        said += (
            f", where the other areas raise the noise by {plan.disturbance_db.mean:.0f} dB in the "
            "mean"
        )
    waits = [(area.wait.mean, area.name) for area in plan.areas if area.wait is not None]
    if len(waits) > 1:
        longest, name = max(waits)
        said += f". Longest waits {name}, {s(longest)} a round"
    return [f"{said}."]


def moving(plan: NetworkPlan) -> list[str]:
    """Return what moves in a round."""
    if not plan.moves:
        return ["Nothing has to move in a round of requests: every part is where it is sent from."]
    largest = ", ".join(
        f"{move.source} to {move.receiver} {gb(move.bytes_per_slot)}"
        for move in plan.moves[:MOVES_NAMED]
    )
    return [
        f"In a typical round {gb(plan.moved_per_slot)} move between sites and "
        f"{gb(plan.from_cloud_per_slot)} come from the cloud. The largest moves are {largest}."
    ]


def buying(plan: NetworkPlan) -> list[str]:
    """Return what the plan buys against other ways, a sentence for each."""
    said = []
    for option in plan.options:
        share = 100 * option.longer.mean
        word = "longer" if share >= 0 else "shorter"
        unclear = "" if clear(option.longer) else ", which these draws do not settle"
        said.append(
            f"With {lower_first(option.label)}, a round would take {s(option.slot_delay.mean)}: "
            f"{abs(share):.0f} % {word}{unclear}."
        )
    return said


def growing(plan: NetworkPlan) -> list[str]:
    """Return where more storage is worth most."""
    worth = [(site.saved_per_gb, site) for site in plan.sites if site.saved_per_gb is not None]
    if not worth:
        return []
    best, site = max(worth, key=lambda one: one[0])
    if best <= 0:
        return ["More storage at a single site would not make a round shorter."]
    saved = site.saved_by_extra
    assert saved is not None
    unclear = "" if clear(saved) else ", though these draws do not settle it"
    return [
        f"More storage seems to help most at {site.name}: {gb(site.extra_bytes)} more there make a "
        f"round {s(saved.mean)} shorter{unclear}."
    ]


def sure(plan: NetworkPlan) -> str:
    """Return how sure the plan is."""
    drawn = (
        f"The plan was chosen on {counted(plan.training, 'draw')} of demand and judged on "
        f"{plan.draws} others"
        if plan.draws > 1
        else f"The plan was chosen on {counted(plan.training, 'draw')} of demand and judged on one "
        "other"
    )
    if plan.lower_bound is None:
        return f"{drawn}."
    above = plan.above_bound
    gap = "" if above is None else f", so this one is at most {100 * above:.0f} % above the best"
    return (
        f"{drawn}. No plan at all, even one that knew every request beforehand, gets a round of "
        f"these draws below {s(plan.lower_bound.mean)} in the mean (proven){gap}."
    )


def option_of(plan: NetworkPlan, key: str) -> Option | None:
    """Return the option of a key, None where it was not computed."""
    return next((option for option in plan.options if option.key == key), None)


def clear(figure: Spread) -> bool:
    """Return whether the interval of a difference leaves out 0."""
    return math.isnan(figure.low) or figure.low > 0 or figure.high < 0


def interval(figure: Spread) -> str:
    """Write a time with its interval."""
    if math.isnan(figure.low):
        return s(figure.mean)
    return f"{s(figure.mean)} ({max(figure.low, 0.0):.3g} to {s(figure.high)})"


def s(value: float) -> str:
    """Write seconds with three digits, below a millisecond with one unit less."""
    if not math.isfinite(value):
        return "for ever" if value > 0 else "-"
    return f"{value:.3g} s" if abs(value) >= 1e-3 or value == 0 else f"{1000 * value:.2g} ms"


def gb(value: float) -> str:
    """Write bytes in GB, small ones in MB."""
    if value == 0:
        return "0 GB"
    return f"{value / 1e9:.2f} GB" if value >= 0.9995e9 else f"{value / 1e6:.3g} MB"


def lower_first(text: str) -> str:
    """Return a label for the middle of a sentence."""
    return text[:1].lower() + text[1:]


def stored_models(
    site: SitePlan, models: Sequence[str]
) -> tuple[list[str], list[tuple[str, float]]]:
    """Return the models that a site stores whole, and others with their stored share, most first.

    Parameters
    ----------
    site
        The site.
    models
        (M,) names.
    """
    whole = [models[m] for m in range(len(models)) if site.model_share[m] >= 1.0]
    parts = [
        (models[m], float(site.model_share[m]))
        for m in (-site.model_share).argsort(kind="stable")
        if 0 < site.model_share[m] < 1.0
    ]
    return whole, parts
