"""The plan as a PDF of A4 pages, drawn with Matplotlib: sentences, map and tables."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from finecast.compare.planning.figures import NetworkPlan, SitePlan
from finecast.compare.planning.map import SHADES, crowded, links_shown, outline_of
from finecast.compare.planning.words import gb, s, stored_models
from finecast.pictures.style import plain

PAGE_IN = (8.27, 11.69)
"""A4."""

LEFT, TOP, BOTTOM = 0.08, 0.94, 0.06
"""Margins, as shares of the page."""

LINE = 0.0165
"""Height of a line, as a share of the page."""

LETTERS = 98
"""Of a line."""

PARTS_SHOWN = 8
"""Models stored in part that a row names."""

INK, BLUE, GREY = "#1b1f24", "#0b5cad", "#c4ccd4"


def plan_document(plan: NetworkPlan) -> bytes:
    """Return the PDF.

    Parameters
    ----------
    plan
        The plan.
    """
    content = io.BytesIO()
    with (
        rc_context({"font.family": "sans-serif", "pdf.fonttype": 42}),
        PdfPages(content, metadata={"Title": f"Plan for {plan.name}", "CreationDate": None}) as pdf,
    ):
        pages = _Pages(pdf)
        pages.write(f"Plan for {plan.name}", size=16, bold=True)
        first, *others = [*plan.sentences, *plan.notes]
        pages.write(first, size=11.5, bold=True)
        for text in others:
            pages.write(text)
        if all(site.position is not None for site in plan.sites):
            pages.draw_map(plan)
        pages.table(
            "What to store",
            ("site", "stored", "models"),
            [(site.name, _stored(site), _models(plan, site)) for site in plan.sites],
            (18, 28, 52),
        )
        pages.table(
            "What goes within an area",
            ("area", "sites", "users a round", "served after", "sent within"),
            [
                (
                    area.name,
                    ", ".join(plan.sites[n].name for n in area.sites),
                    f"{area.asking:.1f}",
                    "-" if area.wait is None else s(area.wait.mean),
                    gb(area.sent_bytes),
                )
                for area in plan.areas
            ],
            (12, 40, 16, 15, 15),
        )
        pages.table(
            "What it buys",
            ("way", "a round", "mean wait"),
            [
                ("this plan", s(plan.slot_delay.mean), s(plan.wait.mean)),
                *((o.label, s(o.slot_delay.mean), s(o.wait.mean)) for o in plan.options),
            ],
            (64, 16, 16),
        )
        grown = [site for site in plan.sites if site.saved_by_extra is not None]
        pages.table(
            "Where more storage helps",
            ("site", "more room", "a round is shorter by"),
            [
                (site.name, gb(site.extra_bytes), s(site.saved_by_extra.mean))
                for site in sorted(grown, key=lambda site: -(site.saved_per_gb or 0.0))
                if site.saved_by_extra is not None
            ],
            (34, 20, 30),
        )
        pages.close()
    return content.getvalue()


class _Pages:
    """Lines set one below the other, on as many pages as they need."""

    def __init__(self, pdf: PdfPages) -> None:
        self.pdf = pdf
        self._begin()

    def _begin(self) -> None:
        self.figure, self.at = Figure(figsize=PAGE_IN), TOP

    def close(self) -> None:
        """Write the page that was begun."""
        self.pdf.savefig(self.figure)

    def room(self, height: float) -> None:
        """Begin another page where less than a height is left."""
        if self.at - height < BOTTOM:
            self.close()
            self._begin()

    def line(self, text: str, *, x: float = LEFT, size: float = 9, bold: bool = False) -> None:
        """Set a line where the page stands."""
        self.figure.text(
            x, self.at, plain(text), fontsize=size, color=INK, va="top",
            fontweight="bold" if bold else "normal",
        )  # fmt: skip

    def write(self, text: str, *, size: float = 9, bold: bool = False) -> None:
        """Set a paragraph."""
        height = LINE * size / 9
        for part in textwrap.wrap(text, int(LETTERS * 9 / size * (0.92 if bold else 1.0))):
            self.room(height)
            self.line(part, size=size, bold=bold)
            self.at -= height
        self.at -= 0.4 * LINE

    def table(
        self,
        heading: str,
        names: Sequence[str],
        rows: Sequence[Sequence[str]],
        letters: Sequence[int],
    ) -> None:
        """Set a table of columns with so many letters each; nothing without rows."""
        if not rows:
            return
        share = (1 - 2 * LEFT) / LETTERS
        start = [LEFT + share * sum(letters[:c]) for c in range(len(letters))]
        lines = [
            [
                textwrap.wrap(text, width - 2) or [""]
                for text, width in zip(row, letters, strict=True)
            ]
            for row in (names, *rows)
        ]
        # Heading, names of the columns and first row stay together.
        self.room((4.5 + max(map(len, lines[1]))) * LINE)
        self.at -= LINE
        self.write(heading, size=11.5, bold=True)
        for number, cells in enumerate(lines):
            self.room(LINE * max(map(len, cells)) + 0.3 * LINE)
            for line in range(max(map(len, cells))):
                for x, cell in zip(start, cells, strict=True):
                    if line < len(cell):
                        self.line(cell[line], x=x, size=8.5, bold=number == 0)
                self.at -= LINE
            self.at -= 0.3 * LINE

    def draw_map(self, plan: NetworkPlan) -> None:
        """Draw the sites and their links."""
        height = 0.34
        self.room(height)
        axes = self.figure.add_axes((LEFT, self.at - height, 1 - 2 * LEFT, height))
        place = [site.position or (0.0, 0.0) for site in plan.sites]
        fastest = max((rate for _, _, rate in plan.links), default=1.0)
        named = not crowded(plan)
        x, y = np.array(place, dtype=np.float64).T
        for a, area in enumerate(plan.areas):
            outline, shade = outline_of(area, x, y), SHADES[a % len(SHADES)]
            corners = [*outline, outline[0]]
            axes.plot(
                x[corners], y[corners], color=shade, linewidth=26.0 if named else 12.0,
                solid_capstyle="round", solid_joinstyle="round", zorder=0,
            )  # fmt: skip
            axes.fill(x[corners], y[corners], color=shade, zorder=0)
        if links_shown(plan):
            for n, m, rate in plan.links:
                axes.plot(
                    *zip(place[n], place[m], strict=True), color=GREY,
                    linewidth=0.6 + 2.4 * (rate / fastest) ** 0.5, zorder=1,
                )  # fmt: skip
        for site, at in zip(plan.sites, place, strict=True):
            axes.plot(*at, "o", color=BLUE, markersize=7 if named else 3, zorder=2)
            if not named:
                continue
            axes.annotate(
                f"{plain(site.name)}\n{gb(site.stored_bytes)}", at, xytext=(0, -7),
                textcoords="offset points", ha="center", va="top", fontsize=7, color=INK,
            )  # fmt: skip
        for area in () if named else plan.areas:
            middle = (float(x[list(area.sites)].mean()), float(y[list(area.sites)].mean()))
            axes.annotate(area.name, middle, ha="center", va="center", fontsize=7, color=INK)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.12)
        axes.set_axis_off()
        self.at -= height + LINE


def _stored(site: SitePlan) -> str:
    return f"{gb(site.stored_bytes)} of {gb(site.storage_bytes)}, {100 * site.full:.0f} % full"


def _models(plan: NetworkPlan, site: SitePlan) -> str:
    whole, parts = stored_models(site, plan.models)
    said = [f"whole: {', '.join(whole)}"] if whole else []
    if parts:
        named = ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts[:PARTS_SHOWN])
        more = len(parts) - PARTS_SHOWN
        said.append(f"in part: {named}" + (f", {more} more" if more > 0 else ""))
    return "; ".join(said) or "nothing"
