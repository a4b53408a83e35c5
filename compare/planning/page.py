"""The plan as one printable page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from finecast.compare.planning.figures import NetworkPlan, SitePlan, Spread
from finecast.compare.planning.map import links_shown, sites_map
from finecast.compare.planning.words import (
    answer,
    clear,
    gb,
    growing,
    moving,
    s,
    side_by_side,
    stored_models,
    sure,
    waiting,
)
from finecast.problem.version import FINECAST_VERSION

MOVES_SHOWN = 12
"""Largest moves in the table."""

PARTS_SHOWN = 8
"""Models stored in part that a row names."""

BLOCKS_SHOWN = 200
"""Parts of a site that the appendix names."""

STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --quiet: #57606a; --rule: #d0d7de; --blue: #0b5cad; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem 1.25rem 3rem; color: var(--ink);
  background: #fff; font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans",
  sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0 .2rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .4rem;
  border-top: 1px solid var(--rule); padding-top: .8rem; }
h3 { font-size: 1rem; margin: 1rem 0 .2rem; }
p { margin: .4rem 0; max-width: 70ch; } .meta, .note, caption, figcaption { color: var(--quiet); }
.lead { font-size: 1.25rem; font-weight: 600; line-height: 1.4; }
.beside { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0 2rem; }
@media (min-width: 56rem) { .beside { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); } }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1rem 0; padding: 0; list-style: none; }
.numbers li { border: 1px solid var(--rule); border-radius: 8px; padding: .6rem .8rem; }
.numbers strong { display: block; font-size: 1.35rem; }
figure { margin: .5rem 0; } figcaption { font-size: .88rem; }
svg.map { width: 100%; height: auto; display: block; font-size: 12.5px; }
svg.map text { fill: var(--ink); }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: .94rem; }
caption { text-align: left; font-size: .9rem; padding-bottom: .3rem; }
th[scope="row"] { min-width: 6rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem .35rem 0;
  border-bottom: 1px solid var(--rule); } td.n, th.n { text-align: right; white-space: nowrap; }
.bar { display: block; height: .5rem; background: #e7ecf1; border-radius: 3px; margin-top: .3rem;
  min-width: 4rem; max-width: 9rem; }
.bar i { display: block; height: 100%; background: var(--blue); border-radius: 3px; }
@media (max-width: 40rem) { body { padding: .6rem .8rem 2rem; } th, td { padding-right: .4rem; }
  table { font-size: .86rem; } .wide { display: none; }
  .numbers { grid-template-columns: 1fr 1fr; } td.n, th.n { white-space: normal; }
  th[scope="row"] { min-width: 5.2rem; } }
@media print { svg.map { max-width: 10.5cm; }
  body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; }
  tr, figure, .numbers li { break-inside: avoid; } thead { display: table-header-group; }
  .bar, .bar i { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
@page { size: A4; margin: 15mm; }
"""


def plan_page(plan: NetworkPlan) -> str:
    """Return the page: style and map inside, no script, nothing to fetch.

    Parameters
    ----------
    plan
        The plan.
    """
    title = f"Plan for {plan.name}"
    body = [
        f'<header><h1>{escape(title)}</h1><p class="meta">{escape(_meta(plan))}</p></header>',
        "<main>",
        _answer(plan),
        _section("What to store", _stored(plan)),
        *(
            [_section("What goes within an area, and what to the city", _areas(plan))]
            * bool(plan.areas)
        ),
        _section("What moves", _moves(plan)),
        _section("What it buys", _options(plan)),
        _section("Where more storage helps", _growth(plan)),
        _section("How sure this is", _sure(plan)),
        _section("Appendix", _appendix(plan)),
        "</main>",
    ]
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="finecast {escape(FINECAST_VERSION)}">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _meta(plan: NetworkPlan) -> str:
    room = sum(site.storage_bytes for site in plan.sites)
    return (
        f"{len(plan.sites)} sites with {gb(room)} of storage · {plan.users} users · "
        f"{len(plan.models)} models of {gb(sum(plan.model_bytes))}, "
        f"{gb(sum(plan.block_bytes))} with each shared part once"
    )


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _answer(plan: NetworkPlan) -> str:
    numbers = [
        (s(plan.wait.mean), "a user waits in the mean"),
        (s(plan.wait_p95.mean), "95 of 100 users wait no longer"),
    ]
    if plan.in_time is not None:
        within = "the deadline" if plan.deadline_s is None else s(plan.deadline_s)
        numbers.append((f"{100 * plan.in_time.mean:.0f} %", f"of requests served within {within}"))
    through = "the last user of a round is served"
    if plan.areas:
        through = "a user's area is served, in the mean"
    numbers.append((s(plan.slot_delay.mean), f"until {through}"))
    boxes = "".join(f"<li><strong>{escape(n)}</strong>{escape(t)}</li>" for n, t in numbers)
    drawn = sites_map(plan)
    picture = (
        f"<figure>{drawn}<figcaption>A disc is as large as the storage of its site, filled as far "
        f"as the plan fills it. {escape(_lines(plan))}</figcaption></figure>"
        if drawn
        else ""
    )
    early = plan.sentences[-1] if plan.interrupted else ""
    return (
        f'<p class="lead">{escape(answer(plan))}</p>'
        + (f"<p><strong>{escape(early)}</strong></p>" if early else "")
        + f'<div class="beside"><div><ul class="numbers">{boxes}</ul>'
        + _paragraphs([*waiting(plan), *moving(plan)])
        + f"</div><div>{picture}</div></div>"
    )


def _lines(plan: NetworkPlan) -> str:
    """Return what lines and colours of the map mean."""
    said = []
    if plan.areas:
        said.append("Sites on one shade are an area.")
    if links_shown(plan):
        said.append("Lines are links between sites, thicker ones faster.")
    return " ".join(said)


def _areas(plan: NetworkPlan) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(area.name)}</th>'
        f"<td>{escape(', '.join(plan.sites[n].name for n in area.sites))}</td>"
        f'<td class="n">{area.asking:.1f}</td>'
        f'<td class="n">{"-" if area.wait is None else s(area.wait.mean)}</td>'
        f'<td class="n">{gb(area.sent_bytes)}</td></tr>'
        for area in plan.areas
    )
    return (
        _paragraphs(side_by_side(plan))
        + f"<p>To several areas at once go {gb(plan.wide_bytes)} a round. That comes first, and "
        "then all areas send side by side.</p>"
        "<table><caption>Sites of an area send together, and only to users of the area.</caption>"
        '<thead><tr><th>Area</th><th>Sites</th><th class="n">users a round</th>'
        '<th class="n">served after</th><th class="n">sent within</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _stored(plan: NetworkPlan) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(site.name)}</th><td>{_fill(site)}</td>"
        f"<td>{_models(plan, site)}</td></tr>"
        for site in plan.sites
    )
    return (
        "<table><caption>Models that a site stores whole can be sent without anything moving. Of "
        "the others it stores the share given, mostly parts that several models have in common."
        "</caption><thead><tr><th>Site</th><th>Stored</th><th>Models</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _fill(site: SitePlan) -> str:
    full = 100 * min(site.full, 1.0)
    return (
        f"{gb(site.stored_bytes)} of {gb(site.storage_bytes)}, {len(site.blocks)} parts, "
        f'{full:.0f} % full<span class="bar"><i style="width:{full:.0f}%"></i></span>'
    )


def _models(plan: NetworkPlan, site: SitePlan) -> str:
    whole, parts = stored_models(site, plan.models)
    said = []
    if whole:
        said.append(f"<strong>whole:</strong> {escape(', '.join(whole))}")
    if parts:
        named = ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts[:PARTS_SHOWN])
        more = len(parts) - PARTS_SHOWN
        rest = f", {more} more" if more > 0 else ""
        said.append(f"<strong>in part:</strong> {escape(named + rest)}")
    return "<br>".join(said).replace(" %", "&nbsp;%") or "nothing"


def _moves(plan: NetworkPlan) -> str:
    if not plan.moves:
        return _paragraphs(moving(plan))
    rows = "".join(
        f"<tr><td>{escape(move.source)}</td><td>{escape(move.receiver)}</td>"
        f'<td class="n">{gb(move.bytes_per_slot)}</td></tr>'
        for move in plan.moves[:MOVES_SHOWN]
    )
    more = len(plan.moves) - MOVES_SHOWN
    rest = f" The {MOVES_SHOWN} largest of {len(plan.moves)}." if more > 0 else ""
    return (
        f"<p>Between sites {gb(plan.moved_per_slot)} a round, from the cloud "
        f"{gb(plan.from_cloud_per_slot)}. Parts move so that more sites can send them together, "
        "which is faster; they are not kept.</p>"
        f"<table><caption>Bytes that move in a typical round.{rest}</caption><thead><tr>"
        '<th>From</th><th>To</th><th class="n">a round</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _options(plan: NetworkPlan) -> str:
    if not plan.options:
        return "<p>Other ways were not computed.</p>"
    rows = [
        f'<tr><th scope="row">this plan</th><td class="n">{s(plan.slot_delay.mean)}</td>'
        f'<td class="n">{s(plan.wait.mean)}</td><td></td></tr>'
    ]
    for option in plan.options:
        rows.append(
            f'<tr><th scope="row">{escape(option.label)}</th>'
            f'<td class="n">{s(option.slot_delay.mean)}</td>'
            f'<td class="n">{s(option.wait.mean)}</td><td>{_longer(option.longer)}</td></tr>'
        )
    return (
        "<table><caption>The same draws of demand, and storage chosen anew for each way.</caption>"
        '<thead><tr><th>Way</th><th class="n">a round</th><th class="n">mean wait</th>'
        "<th>a round against this plan</th></tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table>"
        f'<p class="note">{_round_of_ways(plan)}</p>'
    )


def _round_of_ways(plan: NetworkPlan) -> str:
    if plan.areas:
        return (
            "A round is counted for every user until all users of its area are served. Without "
            "joint sending every site is an area of its own, and no site waits for another."
        )
    return (
        "A round ends when its last user is served. Without joint sending sites take turns; that "
        "sites far apart could send at the same time is not counted."
    )


def _longer(figure: Spread) -> str:
    share = 100 * figure.mean
    said = f"{abs(share):.0f} % {'longer' if share >= 0 else 'shorter'}"
    if not math.isnan(figure.low):
        said += f" ({100 * figure.low:.0f} to {100 * figure.high:.0f} %)"
    return said if clear(figure) else f"{said}, not settled"


def _growth(plan: NetworkPlan) -> str:
    known = [site for site in plan.sites if site.saved_by_extra is not None]
    if not known:
        return "<p>This was not computed.</p>"
    known.sort(key=lambda site: -(site.saved_per_gb or 0.0))
    rows = "".join(
        f'<tr><th scope="row">{escape(site.name)}</th><td class="n">{gb(site.extra_bytes)}</td>'
        f'<td class="n">{_saved(site)}</td><td class="n">{_per_gb(site)}</td></tr>'
        for site in known
    )
    return (
        _paragraphs(growing(plan))
        + "<table><caption>What a little more room at one site saves, the rest of the plan as it "
        'is.</caption><thead><tr><th>Site</th><th class="n">more room</th>'
        '<th class="n">a round is shorter by</th><th class="n">for each GB</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _saved(site: SitePlan) -> str:
    saved = site.saved_by_extra
    if saved is None:
        return "-"
    if math.isnan(saved.low):
        return s(saved.mean)
    return f"{s(saved.mean)} <span class='wide'>({max(saved.low, 0):.3g} to {s(saved.high)})</span>"


def _per_gb(site: SitePlan) -> str:
    return "-" if site.saved_per_gb is None else s(site.saved_per_gb)


def _sure(plan: NetworkPlan) -> str:
    said = [sure(plan)]
    values = ", ".join(s(value) for value in plan.slot_delay.values)
    if plan.draws > 1:
        said.append(
            f"A round took {values} in the {plan.draws} draws. Ranges in brackets hold the true "
            "mean in 95 of 100 cases, as far as the draws resemble what will be asked."
        )
    if plan.above_bound is not None:
        said.append(
            "The distance to the proven limit has two parts that this page does not tell apart: "
            "what better storage could gain, and what only a prophet could."
        )
    return _paragraphs([*said, *plan.notes])


def _appendix(plan: NetworkPlan) -> str:
    how = [
        "A round is a slot of the scenario: users ask, missing parts move, then parts are sent one "
        "message after another, each to all who need it. Parts are the parameter blocks of the "
        "library; a part that several models share is stored and sent once.",
        f"Storage was chosen greedily by the seconds that a copy saves per byte, on the mean of "
        f"{plan.training} training draws (sample average approximation), from tables of achieved "
        "rates of robust coordinated multipoint beams. Draws differ in users' places, requests and "
        "channels; sites, links and tastes stay.",
        "Today's practice is LRU of whole models at every site, with the same joint sending. A "
        "site begins with the models that promise most, and the few rounds of a draw teach it "
        "little. The proven limit is a Lagrangian bound on all plans of a draw, by weak duality.",
    ]
    if plan.areas:
        how.append(
            "Storage was chosen area by area, as if no other area sent. In a draw, the messages of "
            "all areas were then planned together: a part goes to the city where that is faster, "
            "else within areas, with joint beams, at rates that hold whatever the other areas send."
        )
    blocks = "".join(
        f'<tr><th scope="row">{escape(site.name)}</th>'
        f"<td>{escape(_block_list(plan, site))}</td></tr>"
        for site in plan.sites
    )
    return (
        _paragraphs(how)
        + "<h3>Parts of every site</h3><table><thead><tr><th>Site</th><th>Parts</th></tr></thead>"
        f"<tbody>{blocks}</tbody></table>"
        f'<p class="note">{plan.draws} draws of {plan.slots} rounds, seed {plan.seed}, computed in '
        f"{plan.wall_s:.0f} s by finecast {escape(FINECAST_VERSION)}.</p>"
    )


def _block_list(plan: NetworkPlan, site: SitePlan) -> str:
    names = [plan.block_names[j] or str(j) for j in site.blocks[:BLOCKS_SHOWN]]
    more = len(site.blocks) - BLOCKS_SHOWN
    return ", ".join(names) + (f", {more} more" if more > 0 else "") if names else "none"
