"""A map of the sites as SVG that needs no network: links, room, how full, names."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from finecast.compare.planning.figures import AreaPlan, NetworkPlan
from finecast.compare.planning.words import gb
from finecast.problem.arrays import FloatArray

WIDTH = 480.0
MARGIN = 62.0
LARGEST_RADIUS = 17.0
SMALLEST_RADIUS = 8.0
LETTERS = 18
"""Longer names are cut."""

MOST_NAMED = 30
"""With more sites, areas are named alone."""

APART, APART_IN_CROWD = 0.42, 0.24
"""Of the distance to the nearest other site, the largest radius; with more than `MOST_NAMED`."""

SHADES = ("#cfe3f5", "#fbe3c0", "#d3ecd3", "#f6d4dc", "#e2dbf1", "#e6e1c8")
"""Of areas, in turn."""

SHADE_WIDTH = 2.8
"""Width of the line around an area, in radii of the largest disc."""


def sites_map(plan: NetworkPlan) -> str:
    """Return the map as an SVG element; empty where no position is known.

    Parameters
    ----------
    plan
        The plan.
    """
    placed = [site.position for site in plan.sites]
    if any(position is None for position in placed):
        return ""
    metres = np.array(placed, dtype=np.float64)
    low, reach = metres.min(axis=0), np.ptp(metres, axis=0)
    scale = (WIDTH - 2 * MARGIN) / max(float(reach.max()), 1.0)
    height = float(reach[1]) * scale + 2 * MARGIN
    x = MARGIN + (metres[:, 0] - low[0]) * scale + (WIDTH - 2 * MARGIN - reach[0] * scale) / 2
    y = height - MARGIN - (metres[:, 1] - low[1]) * scale
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(len(x))
    named = not crowded(plan)
    part = APART if named else APART_IN_CROWD
    largest = min(LARGEST_RADIUS, max(part * float(apart.min()), 2.0))
    smallest = min(SMALLEST_RADIUS, 0.5 * largest)
    fastest = max((rate for _, _, rate in plan.links), default=1.0)
    parts = [
        f'<svg class="map" viewBox="0 0 {WIDTH:.0f} {height + 26:.0f}" role="img" '
        'aria-labelledby="map-t"><title id="map-t">Map of the sites: a disc is as large as the '
        "room of the site, its dark part as large as what is stored</title>"
    ]
    # Areas and links below, then discs, then names, so that names stay readable.
    for a, area in enumerate(plan.areas):
        shade = SHADES[a % len(SHADES)]
        outline = outline_of(area, x, y)
        points = " ".join(f"{x[n]:.1f},{y[n]:.1f}" for n in outline)
        parts.append(
            f'<polygon points="{points}" fill="{shade}" stroke="{shade}" stroke-linejoin="round" '
            f'stroke-width="{SHADE_WIDTH * largest:.1f}"><title>{escape(area.name)}</title>'
            "</polygon>"
        )
    if links_shown(plan):
        for n, m, rate in plan.links:
            thick = 0.8 + 3.2 * math.sqrt(rate / fastest)
            parts.append(
                f'<line x1="{x[n]:.1f}" y1="{y[n]:.1f}" x2="{x[m]:.1f}" y2="{y[m]:.1f}" '
                f'stroke="#c4ccd4" stroke-width="{thick:.1f}"><title>'
                f"{escape(plan.sites[n].name)} to {escape(plan.sites[m].name)}: "
                f"{rate / 1e9:.3g} Gbit/s</title></line>"
            )
    room = max((site.storage_bytes for site in plan.sites), default=1) or 1
    for site, cx, cy in zip(plan.sites, x, y, strict=True):
        radius = max(smallest, largest * math.sqrt(site.storage_bytes / room))
        inner = radius * math.sqrt(min(site.full, 1.0)) if site.stored_bytes else 0.0
        parts.append(
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{radius:.1f}" fill="#ffffff" '
            'stroke="#0b5cad" stroke-width="1.5"/>'
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{max(inner - 1.2, 0.0):.1f}" fill="#0b5cad">'
            f"<title>{escape(site.name)}: {gb(site.stored_bytes)} of {gb(site.storage_bytes)}"
            "</title></circle>"
        )
    for n, site in enumerate(plan.sites if named else ()):
        radius = max(smallest, largest * math.sqrt(site.storage_bytes / room))
        name = site.name if len(site.name) <= LETTERS else site.name[: LETTERS - 1] + "…"
        parts.append(
            f'<text x="{x[n]:.1f}" y="{y[n] + radius + 13:.1f}" text-anchor="middle" '
            f'paint-order="stroke" stroke="#ffffff" stroke-width="3.5">{escape(name)}</text>'
        )
    for area in () if named else plan.areas:
        middle = [float(v[list(area.sites)].mean()) for v in (x, y)]
        parts.append(
            f'<text x="{middle[0]:.1f}" y="{middle[1] + 4:.1f}" text-anchor="middle" '
            f'paint-order="stroke" stroke="#ffffff" stroke-width="3.5">{escape(area.name)}</text>'
        )
    parts.append(_scale_bar(scale, height) + "</svg>")
    return "".join(parts)


def crowded(plan: NetworkPlan) -> bool:
    """Return whether areas alone are named."""
    return len(plan.sites) > MOST_NAMED and len(plan.areas) > 0


def outline_of(area: AreaPlan, x: FloatArray, y: FloatArray) -> list[int]:
    """Return the sites of an area in the order in which a line around them meets them.

    Parameters
    ----------
    area
        The area.
    x, y
        (N,) of all sites, of whatever unit.

    Returns
    -------
    The corners of the convex hull; all sites of two, or on one line.
    """
    # Andrew's monotone chain: the lower half from left to right, the upper one back.
    ordered = sorted(area.sites, key=lambda n: (x[n], y[n]))
    halves: list[list[int]] = []
    for sequence in (ordered, ordered[::-1]):
        half: list[int] = []
        for n in sequence:
            while len(half) > 1 and _turn(half[-2], half[-1], n, x, y) <= 0:
                half.pop()
            half.append(n)
        halves.append(half[:-1])
    return [*halves[0], *halves[1]] or ordered


def _turn(a: int, b: int, c: int, x: FloatArray, y: FloatArray) -> float:
    """Return twice the area of a triangle, positive where it turns to the left."""
    return float((x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]))


def links_shown(plan: NetworkPlan) -> bool:
    """Return whether there are few enough links to draw them."""
    return 0 < len(plan.links) <= 4 * len(plan.sites)


def _scale_bar(scale: float, height: float) -> str:
    """Return a bar of a round number of metres."""
    most = 0.3 * WIDTH / scale
    power = 10 ** math.floor(math.log10(max(most, 1e-9)))
    metres = max(step * power for step in (1, 2, 5) if step * power <= most)
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    end = 14 + metres * scale
    return (
        f'<path d="M14,{height + 4:.1f}v6H{end:.1f}v-6" fill="none" stroke="#57606a"/>'
        f'<text x="{end + 8:.1f}" y="{height + 13:.1f}">{label}</text>'
    )
