"""What a plan says, as data: sites, moves, waits, other ways of doing it, and what bounds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from scipy.stats import t as student

from finecast.problem.arrays import BoolArray, FloatArray

COVERAGE = 0.95
"""Of the intervals of a mean over draws."""


@dataclass(frozen=True)
class Spread:
    """A figure over several draws of the demand.

    Attributes
    ----------
    mean
        Over the draws.
    low, high
        Ends of the interval of Student's t for the mean, `COVERAGE`; NaN of fewer than two draws.
    values
        Of each draw.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the figure as plain values."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "values": list(self.values)}


def spread(values: Sequence[float]) -> Spread:
    """Return the mean of some draws and its interval.

    Parameters
    ----------
    values
        Of each draw, at least one.

    Examples
    --------
    >>> two = spread([1.0, 3.0])
    >>> two.mean, round(two.high - two.mean, 3)  # 12.706 standard errors of 1
    (2.0, 12.706)
    """
    drawn = np.asarray(values, dtype=np.float64)
    mean, low, high = float(drawn.mean()), math.nan, math.nan
    if len(drawn) > 1:
        error = float(drawn.std(ddof=1)) / math.sqrt(len(drawn))
        half = float(student.ppf(0.5 + COVERAGE / 2, len(drawn) - 1)) * error
        low, high = mean - half, mean + half
    return Spread(mean, low, high, tuple(float(v) for v in drawn))


@dataclass(frozen=True, eq=False)
class SitePlan:
    """What one site stores.

    Attributes
    ----------
    name
        Of the site.
    position
        (x, y) m; None where unknown.
    storage_bytes, stored_bytes
        Its room, and what the plan puts there.
    blocks
        Numbers of the parameter blocks stored.
    model_share
        (M,) share of each model's bytes that is stored here.
    extra_bytes
        The further room that `saved_by_extra` speaks of.
    saved_by_extra
        Seconds by which a round is shorter with it, the rest of the plan as it is; None where the
        computation was ended before.
    """

    name: str
    position: tuple[float, float] | None
    storage_bytes: int
    stored_bytes: int
    blocks: tuple[int, ...]
    model_share: FloatArray
    extra_bytes: int
    saved_by_extra: Spread | None

    @property
    def full(self) -> float:
        """Share of the room that is used; 1 of no room."""
        return self.stored_bytes / self.storage_bytes if self.storage_bytes else 1.0

    @property
    def saved_per_gb(self) -> float | None:
        """Seconds by which a round is shorter for each GB more, in the mean."""
        if self.saved_by_extra is None or not self.extra_bytes:
            return None
        return self.saved_by_extra.mean / (self.extra_bytes / 1e9)


@dataclass(frozen=True)
class Move:
    """What goes from one site, or the cloud, to another one in a round.

    Attributes
    ----------
    source, receiver
        Names; the source may be "the cloud".
    bytes_per_slot
        Mean over slots and draws.
    """

    source: str
    receiver: str
    bytes_per_slot: float


@dataclass(frozen=True)
class AreaPlan:
    """What an area of a city does.

    Attributes
    ----------
    name
        With its number.
    sites
        Numbers of its sites.
    asking
        Users with a request in a round, mean.
    wait
        Seconds until everything that it waits for has arrived; None where nobody ever asks.
    sent_bytes
        Bytes of the messages that stay within it, mean per slot.
    """

    name: str
    sites: tuple[int, ...]
    asking: float
    wait: Spread | None
    sent_bytes: float


@dataclass(frozen=True)
class Option:
    """Another way of running the network, on the same draws.

    Attributes
    ----------
    key
        For programs.
    label
        In plain words.
    slot_delay
        Seconds until the last user of a round is served.
    wait
        Mean seconds that a user waits.
    longer
        (slot_delay of the option) / (slot_delay of the plan) - 1, draw by draw.
    """

    key: str
    label: str
    slot_delay: Spread
    wait: Spread
    longer: Spread


@dataclass(frozen=True, eq=False, repr=False)
class NetworkPlan:
    """The plan of a network; `print(plan)` says it in sentences, `write_plan` makes a page of it.

    Attributes
    ----------
    name
        Of the scenario.
    draws, training, slots, users
        Draws of demand that judge the plan, others that it was chosen on, and their size.
    sites
        What each site stores, in the order of the nodes.
    models, model_bytes, block_names, block_bytes
        Of the library.
    cache
        (N, J) node n stores block j.
    moves
        The largest first.
    moved_per_slot, from_cloud_per_slot
        Bytes between sites, and from the cloud.
    slot_delay
        Seconds until the last user of a round is served.
    wait, wait_p95
        Seconds that a user waits: mean and 95th percentile of all requests of a draw.
    in_time
        Share of the requests served within the deadline; None without deadlines.
    lower_bound
        Per slot and draw, s: certified, and valid for plans that know all requests beforehand.
        None where the computation was ended before.
    options
        Other ways, on the same draws.
    deadline_s
        The one deadline of all models, s; None where there is none, or several.
    notes
        What a reader should know, one line each.
    interrupted
        Ctrl-C ended the computation: some figures are of fewer draws, or missing.
    areas
        Of a city of several; none where all sites send together.
    slowest_area
        Seconds until the slowest area of a round is through; None with one area.
    wide_bytes
        Bytes that go to several areas at once, mean per slot.
    disturbance_db
        How far other areas raise the noise of a user, mean, dB; None with one area.
    links
        Pairs of sites with a link, and its rate in bit/s.
    seed
        Of the network.
    wall_s
        Seconds that the computation took.
    sentences
        What the plan says in plain words; the first sentence is the answer.
    """

    name: str
    draws: int
    training: int
    slots: int
    users: int
    sites: tuple[SitePlan, ...]
    models: tuple[str, ...]
    model_bytes: tuple[int, ...]
    block_names: tuple[str, ...]
    block_bytes: tuple[int, ...]
    cache: BoolArray
    moves: tuple[Move, ...]
    moved_per_slot: float
    from_cloud_per_slot: float
    slot_delay: Spread
    wait: Spread
    wait_p95: Spread
    in_time: Spread | None
    lower_bound: Spread | None
    options: tuple[Option, ...]
    deadline_s: float | None = None
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    areas: tuple[AreaPlan, ...] = ()
    slowest_area: Spread | None = None
    wide_bytes: float = 0.0
    disturbance_db: Spread | None = None
    links: tuple[tuple[int, int, float], ...] = field(default=(), repr=False)
    seed: int = 0
    wall_s: float = 0.0
    sentences: tuple[str, ...] = ()

    @property
    def above_bound(self) -> float | None:
        """How far above the best thinkable plan this one can be: at most this share."""
        if self.lower_bound is None or self.lower_bound.mean <= 0:
            return None
        return self.slot_delay.mean / self.lower_bound.mean - 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for programs."""

        def figures(value: Spread | None) -> dict[str, Any] | None:
            return None if value is None else value.as_dict()

        return {
            "name": self.name,
            "answer": list(self.sentences),
            "draws": self.draws,
            "training_draws": self.training,
            "seed": self.seed,
            "slots": self.slots,
            "users": self.users,
            "sites": [
                {
                    "name": site.name,
                    "storage_bytes": site.storage_bytes,
                    "stored_bytes": site.stored_bytes,
                    "full": site.full,
                    "blocks": [self.block_names[j] for j in site.blocks],
                    "model_share": {
                        model: float(share)
                        for model, share in zip(self.models, site.model_share, strict=True)
                        if share > 0
                    },
                    "extra_bytes": site.extra_bytes,
                    "saved_by_extra_s": figures(site.saved_by_extra),
                    "saved_s_per_gb": site.saved_per_gb,
                }
                for site in self.sites
            ],
            "areas": [
                {
                    "name": area.name,
                    "sites": [self.sites[n].name for n in area.sites],
                    "asking": area.asking,
                    "wait_s": figures(area.wait),
                    "sent_bytes_per_slot": area.sent_bytes,
                }
                for area in self.areas
            ],
            "slowest_area_s": figures(self.slowest_area),
            "wide_bytes_per_slot": self.wide_bytes,
            "disturbance_db": figures(self.disturbance_db),
            "moves": [vars(move) for move in self.moves],
            "moved_bytes_per_slot": self.moved_per_slot,
            "from_cloud_bytes_per_slot": self.from_cloud_per_slot,
            "slot_delay_s": figures(self.slot_delay),
            "wait_s": figures(self.wait),
            "wait_p95_s": figures(self.wait_p95),
            "deadline_s": self.deadline_s,
            "in_time_share": figures(self.in_time),
            "lower_bound_s": figures(self.lower_bound),
            "above_bound": self.above_bound,
            "options": [
                {
                    "key": option.key,
                    "label": option.label,
                    "slot_delay_s": figures(option.slot_delay),
                    "wait_s": figures(option.wait),
                    "longer": figures(option.longer),
                }
                for option in self.options
            ],
            "notes": list(self.notes),
            "interrupted": self.interrupted,
            "wall_s": self.wall_s,
        }

    def __repr__(self) -> str:
        return (
            f"NetworkPlan(name={self.name!r}, sites={len(self.sites)}, draws={self.draws}, "
            f"wait_s={self.wait.mean:.6g}, slot_delay_s={self.slot_delay.mean:.6g})"
        )

    def _repr_html_(self) -> str:
        """Return the answer in sentences, the first one bold, for notebooks."""
        first, *others = [f"<p>{escape(text)}</p>" for text in (*self.sentences, *self.notes)]
        return "".join([f"<strong>{first}</strong>", *others])

    def __str__(self) -> str:
        """Return the answer in sentences, one a line."""
        return "\n".join(self.sentences)
