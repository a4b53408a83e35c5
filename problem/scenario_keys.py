"""What may stand in a scenario file: sections, keys, defaults, limits, and how a value is checked.

`finecast.problem.scenario_draw` makes an instance of them, `finecast.problem.scenario` reads the
file.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from finecast.problem.areas import areas_of_lists
from finecast.problem.families import MOST_VARIANTS
from finecast.problem.library import LARGEST_INCIDENCE
from finecast.problem.replay import COLUMNS, Users

LARGEST_NUMBER = 1e9
"""No quantity of a scenario is larger, in its own unit (GB, Gbit/s, MHz, m); none is smaller than
its inverse, unless it is zero. Bytes and bit/s then fit, and so do their products."""

LARGEST_DB = 1000.0
"""Powers and noise figures stay within so many dB of 1 mW or of thermal noise."""

MOST_SLOTS = 100_000
MOST_USERS = 100_000
MOST_NODES = 10_000
MOST_ANTENNAS = 4096
MOST_MODELS = 1_000_000
MOST_BLOCKS = 1_000_000
MOST_SEED = 2**63 - 1

LARGEST_INSTANCE_BYTES = 2**31
"""An instance whose arrays would take more is refused before any is made."""

Positive = Annotated[float, Field(ge=1 / LARGEST_NUMBER, le=LARGEST_NUMBER, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST_NUMBER, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Decibel = Annotated[float, Field(ge=-LARGEST_DB, le=LARGEST_DB, allow_inf_nan=False)]
Coordinate = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
Antennas = Annotated[Count, Field(le=MOST_ANTENNAS)]
Point = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
Span = Positive | Annotated[list[Positive], Field(min_length=2, max_length=2)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _refuse_beside(section: _Section, *keys: str, named: str = "file") -> None:
    """Refuse keys that the file of a section takes the place of."""
    for key in keys:
        if key in section.model_fields_set and getattr(section, key) is not None:
            raise ValueError(f"give either {named!r} or {key!r}")


class FamilySection(_Section):
    """One set of task variants of a backbone; see `finecast.problem.families.FamilySpec`."""

    backbone: str
    variants: Annotated[Count, Field(le=MOST_VARIANTS)] = 4
    freeze_ratio: Share | list[Share] | None = None
    granularity: Literal["stage", "block"] | Count = "block"
    dtype: Literal["float32", "float16"] | None = None
    classes: Count | None = None
    lora_rank: Count | None = None
    lora_targets: Literal["qv", "qkvo", "all"] | None = None


class SyntheticSection(_Section):
    """A library made up for studies of size; see `finecast.problem.synthetic`."""

    models: Annotated[Count, Field(le=MOST_MODELS)]
    blocks: Annotated[Count, Field(le=MOST_BLOCKS)]
    families: Annotated[Count, Field(le=MOST_MODELS)] = 1
    shared_share: Share = 0.75
    total_gb: Positive = 5.0

    @model_validator(mode="after")
    def _small_enough(self) -> SyntheticSection:
        if self.models * self.blocks > LARGEST_INCIDENCE:
            raise ValueError(
                f"models * blocks is {self.models * self.blocks}, must be <= {LARGEST_INCIDENCE}"
            )
        return self


class LibrarySection(_Section):
    """A library file (relative to the scenario), families built on the spot, or made up."""

    file: str | None = None
    families: list[FamilySection] = []
    synthetic: SyntheticSection | None = None

    @model_validator(mode="after")
    def _one_source(self) -> LibrarySection:
        if sum(map(bool, (self.file, self.families, self.synthetic))) != 1:
            raise ValueError("give one of 'file', 'families' and 'synthetic'")
        return self


class NodesSection(_Section):
    """Edge nodes: where they stand, what they store, how strongly they send, who cooperates.

    `file` is a CSV of sites (relative to the scenario). A key beside it, such as `storage_gb`,
    wins over the column of that name.
    """

    file: str | None = None
    count: Annotated[Count, Field(le=MOST_NODES)] = 4
    antennas: Antennas | list[Antennas] = 4
    layout: Literal["hexagonal", "square"] = "hexagonal"
    inter_site_distance_m: Positive = 200.0
    positions_m: list[Point] | None = None
    power_dbm: Decibel | list[Decibel] = 30.0
    power_w: Positive | list[Positive] | None = None
    storage_gb: NonNegative | list[NonNegative] | None = None
    storage_share: NonNegative | None = None
    areas: Literal["none", "district"] | int | list[list[int]] = "none"

    @field_validator("areas", mode="before")
    @classmethod
    def _areas(cls, given: Any) -> Any:
        number = isinstance(given, int) and not isinstance(given, bool) and given >= 1
        lists = isinstance(given, list | tuple) and all(
            isinstance(nodes, list | tuple) and all(type(n) is int for n in nodes)
            for nodes in given
        )
        if given not in ("none", "district") and not number and not (lists and given):
            raise ValueError(
                "areas must be 'none', 'district', the most nodes of an area (a whole number >= "
                "1), or a list of the nodes of each area"
            )
        return given

    @model_validator(mode="after")
    def _consistent(self) -> NodesSection:
        if self.storage_gb is not None and self.storage_share is not None:
            raise ValueError("give either 'storage_gb' or 'storage_share'")
        if self.power_w is not None and "power_dbm" in self.model_fields_set:
            raise ValueError("give either 'power_w' or 'power_dbm'")
        if self.file is not None:
            _refuse_beside(self, "count", "positions_m", "layout", "inter_site_distance_m")
            return self  # the file says how many there are
        for key in ("positions_m", "antennas", "storage_gb", "power_dbm", "power_w"):
            given = getattr(self, key)
            if isinstance(given, list) and len(given) != self.count:
                raise ValueError(f"{key} has {len(given)} entries, count is {self.count}")
        if isinstance(self.areas, list):
            try:
                areas_of_lists(self.areas, self.count)
            except ValueError as error:
                raise ValueError(f"areas: {error}") from None
        return self


class LinksSection(_Section):
    """Migration rates; [low, high] draws every link uniformly in between.

    `file` is a CSV of the links there are (relative to the scenario). `distance_gbps` is a list of
    [m, Gbit/s], nearest first: two sites have the rate of the first distance that reaches.
    """

    backhaul_gbps: Span = [1.0, 10.0]
    cloud_gbps: Span = [0.2, 1.0]
    file: str | None = None
    distance_gbps: (
        Annotated[
            list[Annotated[list[Positive], Field(min_length=2, max_length=2)]], Field(min_length=1)
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _one_source(self) -> LinksSection:
        if self.file is not None:
            _refuse_beside(self, "backhaul_gbps", "distance_gbps")
        if self.distance_gbps is not None:
            _refuse_beside(self, "backhaul_gbps", named="distance_gbps")
            reaches = [reach for reach, _ in self.distance_gbps]
            if any(near >= far for near, far in pairwise(reaches)):
                raise ValueError(f"distance_gbps: distances {reaches} must rise")
        return self


class RadioSection(_Section):
    """The downlink carrier."""

    carrier_ghz: Positive = 3.5
    bandwidth_mhz: Positive = 100.0
    noise_figure_db: Decibel = 9.0
    max_spectral_efficiency: Positive | None = 7.4063


class ChannelSection(_Section):
    """How channels are drawn, or the file they are read from (relative to the scenario)."""

    environment: Literal["umi", "uma", "iid"] = "umi"
    los: Literal["mixture", "los", "nlos"] = "mixture"
    correlation: Share = 0.9
    error: NonNegative = 0.0
    file: str | None = None


class MotionSection(_Section):
    """How users move from slot to slot; see `finecast.problem.motion`."""

    speed_mps: NonNegative | Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = (
        None
    )
    pause_s: NonNegative = 0.0
    slot_s: Positive = 1.0
    area_m: Annotated[list[Coordinate], Field(min_length=4, max_length=4)] | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> MotionSection:
        if (self.speed_mps is None) == (self.file is None):
            raise ValueError("give one of 'speed_mps' and 'file'")
        if isinstance(self.speed_mps, list) and self.speed_mps[0] > self.speed_mps[1]:
            raise ValueError(f"speed_mps: {self.speed_mps} is not allowed, must be [low, high]")
        area = self.area_m
        if area is not None and not (area[0] < area[2] and area[1] < area[3]):
            raise ValueError(
                f"area_m: {area} is not allowed, must be [least x, least y, largest x, largest y]"
            )
        return self

    @property
    def speeds(self) -> tuple[float, float]:
        """Lowest and highest speed, m/s."""
        low, high = self.speed_mps if isinstance(self.speed_mps, list) else (self.speed_mps,) * 2
        return float(low or 0.0), float(high or 0.0)


class UsersSection(_Section):
    """Users, dropped uniformly within `cell_radius_m` of some node, or at given positions.

    `file` (relative to the scenario) says how many users each site or each cell of a map has. With
    `count` besides, its numbers are weights, and so many users are shared out by them.
    """

    file: str | None = None
    count: Annotated[Count, Field(le=MOST_USERS)] = 12
    cell_radius_m: Positive | None = None
    min_distance_m: NonNegative = 10.0
    positions_m: list[Point] | None = None
    motion: MotionSection | None = None

    @model_validator(mode="after")
    def _one_source(self) -> UsersSection:
        tracks = self.motion is not None and self.motion.file is not None
        if self.file is not None:
            _refuse_beside(self, "positions_m")
            if tracks:
                raise ValueError("give either 'file' or 'motion.file'")
        if self.positions_m is None:
            return self
        if len(self.positions_m) != self.count:
            raise ValueError(
                f"positions_m has {len(self.positions_m)} entries, count is {self.count}"
            )
        if tracks:
            raise ValueError("give either 'positions_m' or 'motion.file'")
        return self


class ReplaySection(_Section):
    """How a trace with time stamps becomes slots; see `finecast.problem.replay.read_replay`."""

    slot_s: Positive
    start_s: Annotated[float, Field(allow_inf_nan=False)] | None = None
    models: Literal["rank"] | dict[str, str | Annotated[int, Field(ge=0, strict=True)]] = "rank"
    users: Users = "first-come"
    columns: Annotated[list[str], Field(min_length=3, max_length=3)] = list(COLUMNS)
    answered: str | None = None


class DemandSection(_Section):
    """Who asks for what; `trace` is a CSV (slot, user, model) in place of drawn requests.

    With `replay` the trace has time stamps.

    `file` is a CSV (model, weight and perhaps site) in place of drawn tastes.

    `deadline_s` is one number for all models, or one for each of some families.
    """

    zipf: NonNegative = 0.8
    tastes: Share = 0.0
    taste_areas: Literal["user", "node"] = "user"
    drift: Share = 0.0
    period: Annotated[int, Field(ge=0, strict=True)] = 0
    persistence: Share = 0.0
    activity: Share = 1.0
    trace: str | None = None
    replay: ReplaySection | None = None
    file: str | None = None
    deadline_s: Positive | dict[str, Positive] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DemandSection:
        if self.file is not None:
            _refuse_beside(self, "zipf", "tastes", "taste_areas", "drift", "period")
        if self.replay is not None and self.trace is None:
            raise ValueError("replay: needs the file of the trace, give 'trace' too")
        return self


class ScenarioKeys(_Section):
    """A class of instances in the words of a person; defaults for everything but the library.

    With `nested` an instance with more users, nodes, antennas or slots keeps what was there:
    positions, links, tastes, requests and channels (`finecast.problem.nested`). More nodes move
    those users to whom a new cell falls.
    """

    name: str = "scenario"
    description: str = ""
    slots: Annotated[Count, Field(le=MOST_SLOTS)] = 1
    nested: bool = False
    delivery: Literal["sequential", "spatial"] = "sequential"
    schedule: Literal["sequential", "pipelined"] = "sequential"
    library: LibrarySection
    nodes: NodesSection = NodesSection()
    links: LinksSection = LinksSection()
    radio: RadioSection = RadioSection()
    channel: ChannelSection = ChannelSection()
    users: UsersSection = UsersSection()
    demand: DemandSection = DemandSection()
    _path: Path = Path("scenario.toml")
