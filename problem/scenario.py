"""Scenario: what a person writes in TOML, and the instances drawn from it.

Every random part has a seed of its own, derived from (seed, name of the part), so that positions,
channels, CSI errors, links, tastes and requests vary one at a time.

The parts are of two sorts. The *network* is what stays as it is over the slots, and the demand
model: library, storage, links, preferences, positions, large-scale fading. A *path* is one course
of events on it: requests, fading, CSI errors. Many paths of one network have one seed and different
path numbers. *Places* are the positions of users and their large-scale fading, which can be drawn
anew while the rest of the network stays.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from finecast.problem.areas import areas_of_lists, partition
from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.channel import draw_channels, draw_true_channel, present_antennas
from finecast.problem.demand import draw_demand, sample
from finecast.problem.families import MOST_VARIANTS, FamilySpec, build_family
from finecast.problem.instance import Instance
from finecast.problem.library import LARGEST_INCIDENCE, ModelLibrary, combine, read_library
from finecast.problem.measured import read_channels
from finecast.problem.motion import Area, random_waypoint, read_tracks
from finecast.problem.nested import NestedGenerator
from finecast.problem.network import (
    Network,
    db_to_linear,
    dbm_to_w,
    drop_users,
    drop_users_nested,
    hexagonal_positions,
    square_positions,
    thermal_noise_w,
)
from finecast.problem.replay import COLUMNS, Replay, Users, read_replay
from finecast.problem.shipped import find
from finecast.problem.synthetic import synthetic_library
from finecast.problem.toml import merged, read_model, validated
from finecast.problem.trace import read_trace
from finecast.problem.wording import hint

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
    """Edge nodes: where they stand, what they store, how strongly they send, who cooperates."""

    count: Annotated[Count, Field(le=MOST_NODES)] = 4
    antennas: Antennas | list[Antennas] = 4
    layout: Literal["hexagonal", "square"] = "hexagonal"
    inter_site_distance_m: Positive = 200.0
    positions_m: list[Point] | None = None
    power_dbm: Decibel = 30.0
    storage_gb: NonNegative | list[NonNegative] | None = None
    storage_share: NonNegative | None = None
    areas: Literal["none"] | int | list[list[int]] = "none"

    @field_validator("areas", mode="before")
    @classmethod
    def _areas(cls, given: Any) -> Any:
        number = isinstance(given, int) and not isinstance(given, bool) and given >= 1
        lists = isinstance(given, list | tuple) and all(
            isinstance(nodes, list | tuple) and all(type(n) is int for n in nodes)
            for nodes in given
        )
        if given != "none" and not number and not (lists and given):
            raise ValueError(
                "areas must be 'none', the most nodes of an area (a whole number >= 1), or a list "
                "of the nodes of each area"
            )
        return given

    @model_validator(mode="after")
    def _consistent(self) -> NodesSection:
        if self.positions_m is not None and len(self.positions_m) != self.count:
            raise ValueError(
                f"positions_m has {len(self.positions_m)} entries, count is {self.count}"
            )
        if isinstance(self.antennas, list) and len(self.antennas) != self.count:
            raise ValueError(f"antennas has {len(self.antennas)} entries, count is {self.count}")
        if isinstance(self.storage_gb, list) and len(self.storage_gb) != self.count:
            raise ValueError(
                f"storage_gb has {len(self.storage_gb)} entries, count is {self.count}"
            )
        if self.storage_gb is not None and self.storage_share is not None:
            raise ValueError("give either 'storage_gb' or 'storage_share'")
        if isinstance(self.areas, list):
            try:
                areas_of_lists(self.areas, self.count)
            except ValueError as error:
                raise ValueError(f"areas: {error}") from None
        return self

    @property
    def most_antennas(self) -> int:
        """A, the most antennas of any node."""
        return max(self.antennas) if isinstance(self.antennas, list) else self.antennas


class LinksSection(_Section):
    """Migration rates; [low, high] draws every link uniformly in between."""

    backhaul_gbps: Span = [1.0, 10.0]
    cloud_gbps: Span = [0.2, 1.0]


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
    """Users, dropped uniformly within `cell_radius_m` of some node, or at given positions."""

    count: Annotated[Count, Field(le=MOST_USERS)] = 12
    cell_radius_m: Positive | None = None
    min_distance_m: NonNegative = 10.0
    positions_m: list[Point] | None = None
    motion: MotionSection | None = None

    @model_validator(mode="after")
    def _consistent(self) -> UsersSection:
        if self.positions_m is None:
            return self
        if len(self.positions_m) != self.count:
            raise ValueError(
                f"positions_m has {len(self.positions_m)} entries, count is {self.count}"
            )
        if self.motion is not None and self.motion.file is not None:
            raise ValueError("give either 'positions_m' or 'motion.file'")
        return self


class ReplaySection(_Section):
    """How a trace with time stamps becomes slots; see `finecast.problem.replay.read_replay`."""

    slot_s: Positive
    start_s: Annotated[float, Field(allow_inf_nan=False)] | None = None
    models: Literal["rank"] | dict[str, str | Annotated[int, Field(ge=0, strict=True)]] = "rank"
    users: Users = "first-come"
    columns: Annotated[list[str], Field(min_length=3, max_length=3)] = list(COLUMNS)


class DemandSection(_Section):
    """Who asks for what; `trace` is a CSV (slot, user, model) in place of drawn requests.

    With `replay` the trace has time stamps.

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
    deadline_s: Positive | dict[str, Positive] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> DemandSection:
        if self.replay is not None and self.trace is None:
            raise ValueError("replay: needs the file of the trace, give 'trace' too")
        return self


class Scenario(_Section):
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

    def with_(self, changes: Mapping[str, Any] | None = None, /, **sections: Any) -> Scenario:
        """Return the scenario with other values, checked as those of a file are.

        What is not named stays, within a section too; `library` is replaced as a whole, unless one
        of its values is named by a dotted key.

        Parameters
        ----------
        changes
            Values by key; the key of a value in a section may be dotted, as in
            `{"nodes.storage_gb": 4}`.
        **sections
            The same by keyword, as in `slots=4, users={"count": 6}`.

        Raises
        ------
        ValueError
            A key is unknown (the nearest known one is suggested), or a value is not allowed.

        Examples
        --------
        >>> tiny = read_scenario("tiny").with_({"users.count": 6}, slots=2)
        >>> tiny.users.count, tiny.slots
        (6, 2)
        """
        table = self.model_dump(exclude_unset=True)
        changes = {**(changes or {}), **sections}
        for pair in EITHER:
            if all(changes.get(key) is not None for key in pair):
                one, other = (key.rpartition(".")[2] for key in pair)
                raise ValueError(f"{pair[0]}: give either {one!r} or {other!r}")
        for key, value in changes.items():
            over = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
            table = placed(table, key, over) if "." in key else merged(table, {key: over})
        changed = validated(Scenario, table)
        changed._path = self._path
        return changed

    @property
    def file(self) -> Path:
        """The file that it was read from."""
        return self._path

    def generate(
        self, seed: int = 0, path: int | None = None, places: int | None = None
    ) -> Instance:
        """Draw an instance; the same seed and path give the same instance, bit for bit.

        Parameters
        ----------
        seed
            Non-negative integer.
        path
            Number of the path on the network of this seed, non-negative: requests, fading and
            CSI errors drawn anew, everything else the same. None for those of the seed itself,
            which is one more path.
        places
            Number of a redraw of the users' positions and their large-scale fading (line of sight,
            shadowing, K factors, arrays), non-negative; everything else of the network the same.
            Where users of one node share a taste, each stays nearest to its node, which leaves
            preferences as they are. None for those of the seed itself.

        Raises
        ------
        ValueError
            The parts do not fit together, or a file that the scenario names is bad.
        """
        if not 0 <= seed <= MOST_SEED:
            raise ValueError(f"seed: {seed} is not allowed, must be from 0 to {MOST_SEED}")
        for name, number in (("path", path), ("places", places)):
            if number is not None and not 0 <= number <= MOST_SEED:
                raise ValueError(f"{name}: {number} is not allowed, must be from 0 to {MOST_SEED}")
        # Places, then tastes and requests, then channels: each from a seed of its own.
        library = self._library(seed)
        self._refuse_too_large(library)
        node_position = self._node_position()
        track = self._track(seed, places, node_position)
        user_position = track[0]
        nearest = _nearest(user_position, node_position)
        demand = draw_demand(
            self._rng(seed, "tastes"),
            slots=self.slots,
            users=self.users.count,
            models=library.models,
            zipf=self.demand.zipf,
            tastes=self.demand.tastes,
            drift=self.demand.drift,
            period=self.demand.period,
            persistence=self.demand.persistence,
            activity=self.demand.activity,
            area=nearest if self.demand.taste_areas == "node" else None,
            areas=self.nodes.count if self.nested and self.demand.taste_areas == "node" else None,
        )
        channels = self._channels(seed, path, places, node_position, track)
        estimate, error, true, gain = channels
        if places is not None and isinstance(self.nodes.areas, int):  # areas stay where they are
            home = self._track(seed, None, node_position)
            gain = self._channels(seed, None, None, node_position, home)[3]
        return Instance(
            library=library,
            network=self._network(seed, library, node_position),
            demand=demand,
            requests=(
                sample(demand, self._rng(seed, "requests", path))
                if self.demand.trace is None
                else self._trace(library)
            ),
            channel_estimate=estimate,
            channel_error=error,
            channel_true=true,
            delivery=self.delivery,
            schedule=self.schedule,
            user_position=user_position,
            deadline=self._deadline(library),
            name=self.name,
            seed=seed,
            areas=self._areas_of_nodes(gain, node_position),
            user_track=track if len(track) == self.slots and (track != track[:1]).any() else None,
        )

    def _deadline(self, library: ModelLibrary) -> FloatArray:
        """Return (M,) seconds, infinite for models without a deadline; empty where none has one."""
        given = self.demand.deadline_s
        if given is None:
            return np.zeros(0)
        if not isinstance(given, dict):
            return np.full(library.models, given)
        for family in given:
            if family not in library.model_family:
                known = sorted(set(filter(None, library.model_family)))
                raise ValueError(
                    f"demand.deadline_s: family {family!r} is not in the library; "
                    f"{hint(family, known) if known else 'it has no families'}"
                )
        return np.array([given.get(family, np.inf) for family in library.model_family])

    def _refuse_too_large(self, library: ModelLibrary) -> None:
        """Refuse an instance that takes too much memory, before any of its arrays is made."""
        slots, users, nodes = self.slots, self.users.count, self.nodes.count
        of_slots = f"slots = {slots}, users.count = {users}"
        # Estimates: three arrays of complex channels, two of preferences, one of who needs what.
        estimates = {
            f"{of_slots}, nodes.count = {nodes}, nodes.antennas = {self.nodes.most_antennas}": (
                3 * 16 * slots * users * nodes * self.nodes.most_antennas
            ),
            f"{of_slots}, library of {library.models} models": 16 * slots * users * library.models,
            f"{of_slots}, library of {library.blocks} blocks": slots * users * library.blocks,
            f"nodes.count = {nodes}": 3 * 8 * nodes**2,
        }
        what = max(estimates, key=lambda name: estimates[name])
        if sum(estimates.values()) > LARGEST_INSTANCE_BYTES:
            raise ValueError(
                f"{what}: would take {estimates[what]} bytes, an instance may take at most "
                f"{LARGEST_INSTANCE_BYTES}"
            )

    def _rng(self, seed: int, part: str, number: int | None = None) -> np.random.Generator:
        """Return what draws a part: `random`, `standard_normal` and `uniform` by shape."""
        if self.nested:
            return cast(np.random.Generator, NestedGenerator(seed, part, number))
        return _rng(seed, part, number)

    def _library(self, seed: int) -> ModelLibrary:
        if self.library.synthetic:
            return synthetic_library(_rng(seed, "library"), **self.library.synthetic.model_dump())
        if self.library.file:
            return read_library(find(self.library.file, "library", folder=self._path.parent))
        return combine([build_family(_family_spec(family)) for family in self.library.families])

    def _node_position(self) -> FloatArray:
        if self.nodes.positions_m is not None:
            return np.array(self.nodes.positions_m, dtype=np.float64)
        lay_out = hexagonal_positions if self.nodes.layout == "hexagonal" else square_positions
        position = lay_out(self.nodes.count, self.nodes.inter_site_distance_m)
        if not self.nested:
            return position
        # A layout is centred: with the first node in the middle, to the micrometre, nodes that come
        # move no other.
        return np.asarray(np.round(position - position[0], 6))

    def _track(self, seed: int, places: int | None, node_position: FloatArray) -> FloatArray:
        """Return (S, K, 2) m, where users are: S = T, or S = 1 where all stay."""
        motion = self.users.motion
        if motion is not None and motion.file is not None:
            area = None if motion.area_m is None else cast(Area, tuple(motion.area_m))
            file = self._path.parent / motion.file
            return read_tracks(file, self.slots, self.users.count, area)
        start = self._user_position(seed, places, node_position)
        if motion is None:
            return start[None]

        def waypoint(leg: int) -> FloatArray:
            rng = self._rng(seed, f"waypoint {leg}", places)
            if motion.area_m is None:
                return self._drop(rng, node_position)
            low, high = np.array(motion.area_m[:2]), np.array(motion.area_m[2:])
            return np.asarray(low + (high - low) * rng.random(start.shape))

        return random_waypoint(
            start,
            self.slots,
            motion.slot_s,
            motion.speeds,
            motion.pause_s,
            waypoint,
            lambda leg: self._rng(seed, f"speed of leg {leg}", places).random(len(start)),
        )

    def _drop(self, rng: np.random.Generator, node_position: FloatArray) -> FloatArray:
        """Return (K, 2) m, uniform over the cells."""
        return (drop_users_nested if self.nested else drop_users)(
            rng,
            node_position,
            self.users.count,
            cell_radius_m=(
                self.users.cell_radius_m or self.nodes.inter_site_distance_m / np.sqrt(3.0)
            ),
            min_distance_m=self.users.min_distance_m,
        )

    def _user_position(
        self, seed: int, places: int | None, node_position: FloatArray
    ) -> FloatArray:
        if self.users.positions_m is not None:
            return np.array(self.users.positions_m, dtype=np.float64)
        position = self._drop(self._rng(seed, "users"), node_position)
        if places is None:
            return position
        rng = self._rng(seed, "users", places)
        if self.demand.taste_areas == "user":
            return self._drop(rng, node_position)
        # Given every user's node, by rejection: users are independent of one another.
        home, left = _nearest(position, node_position), np.arange(self.users.count)
        while left.size:
            again = self._drop(rng, node_position)
            hit = left[_nearest(again, node_position)[left] == home[left]]
            position[hit] = again[hit]
            left = np.setdiff1d(left, hit)
        return position

    def _network(self, seed: int, library: ModelLibrary, node_position: FloatArray) -> Network:
        nodes = self.nodes.count
        rng = self._rng(seed, "links")
        bandwidth = self.radio.bandwidth_mhz * 1e6
        if self.nodes.storage_share is not None:
            storage = np.full(nodes, self.nodes.storage_share * float(library.block_size.sum()))
        else:
            storage_gb = 4.0 if self.nodes.storage_gb is None else self.nodes.storage_gb
            storage = np.broadcast_to(np.asarray(storage_gb) * 1e9, nodes)
        return Network(
            storage=np.round(storage).astype(np.int64),
            power=np.full(nodes, dbm_to_w(self.nodes.power_dbm)),
            backhaul_rate=1e9 * _draw(rng, self.links.backhaul_gbps, (nodes, nodes)),
            cloud_rate=1e9 * _draw(rng, self.links.cloud_gbps, (nodes,)),
            bandwidth=bandwidth,
            noise_power=thermal_noise_w(bandwidth, self.radio.noise_figure_db),
            max_spectral_efficiency=self.radio.max_spectral_efficiency or np.inf,
            node_position=node_position,
        )

    def _areas_of_nodes(self, gain: FloatArray, node_position: FloatArray) -> IntArray:
        """Return (N,) the area of every node; gain is (K, N), the power gain of each link."""
        areas = self.nodes.areas
        if isinstance(areas, list):
            return areas_of_lists(areas, self.nodes.count)
        if isinstance(areas, int):
            return partition(gain, node_position, areas)
        return np.zeros(self.nodes.count, dtype=np.int64)

    def _channels(
        self,
        seed: int,
        path: int | None,
        places: int | None,
        node_position: FloatArray,
        track: FloatArray,
    ) -> tuple[Any, FloatArray, Any, FloatArray]:
        """Return estimates, error radii, true channels, and (K, N) mean power gains of links."""
        shape = (self.slots, self.users.count, self.nodes.count, self.nodes.most_antennas)
        if self.channel.file is not None:
            estimate = read_channels(self._path.parent / self.channel.file, shape)
            error = self.channel.error * np.linalg.norm(estimate, axis=3)
            rng = self._rng(seed, "csi error", path)
            gain = np.mean(np.linalg.norm(estimate, axis=3) ** 2, axis=0)
            present = present_antennas(self.nodes.antennas, self.nodes.count)
            if estimate[..., ~present].any():
                raise ValueError(
                    f"channel.file: {self.channel.file!r} has channels of antennas that "
                    "nodes.antennas does not have, must be zero"
                )
            return estimate, error, draw_true_channel(rng, estimate, error, present), gain
        channels = draw_channels(
            node_position,
            track if len(track) == self.slots else track[0],
            large_scale_rng=self._rng(seed, "large scale", places),
            fading_rng=self._rng(seed, "fading", path),
            error_rng=self._rng(seed, "csi error", path),
            slots=self.slots,
            antennas=self.nodes.antennas,
            carrier_ghz=self.radio.carrier_ghz,
            environment=self.channel.environment,
            los=self.channel.los,
            correlation=self.channel.correlation,
            error=self.channel.error,
        )
        gain = db_to_linear(channels.gain_db)
        gain = gain if gain.ndim == 2 else gain.mean(axis=0)
        return channels.estimate, channels.error, channels.true, gain

    def replayed(self, seed: int = 0) -> Replay | None:
        """Return what becomes of the lines of a trace with time stamps; None without one."""
        return None if self.demand.replay is None else self._replay(self._library(seed))

    def _replay(self, library: ModelLibrary) -> Replay:
        given = cast(ReplaySection, self.demand.replay)
        return read_replay(
            self._path.parent / str(self.demand.trace),
            self.slots,
            self.users.count,
            library.model_names,
            slot_s=given.slot_s,
            start_s=given.start_s,
            models=given.models,
            who=given.users,
            columns=given.columns,
        )

    def _trace(self, library: ModelLibrary) -> IntArray:
        if self.demand.replay is not None:
            return self._replay(library).requests
        return read_trace(
            self._path.parent / str(self.demand.trace),
            self.slots,
            self.users.count,
            library.models,
            model_names=library.model_names,
        )


EITHER = (("nodes.storage_gb", "nodes.storage_share"),)
"""Keys of which a scenario has one: a value put in the place of one drops the other."""


def placed(table: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a scenario's table with a value at a dotted key; all others stay.

    Parameters
    ----------
    table
        As in a file.
    key
        As in `nodes.storage_gb`.
    value
        What stands there. It is checked with the table, not here.

    Raises
    ------
    ValueError
        A part of the key on the way is no table.
    """
    for pair in EITHER:
        if key in pair and value is not None:
            section, other = next(name for name in pair if name != key).split(".")
            if isinstance(table.get(section), Mapping):
                kept = {name: v for name, v in table[section].items() if name != other}
                table = {**table, section: kept}
    first, _, rest = key.partition(".")
    if not rest:
        return {**table, first: value}
    inner = table.get(first, {})
    if not isinstance(inner, Mapping):
        raise ValueError(f"{key}: {first!r} has no values of its own")
    return {**table, first: placed(inner, rest, value)}


def scenario_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that change a scenario, and all others.

    Those of a scenario are `slots`, `nested` and dotted keys that begin with one of its sections,
    as in `users.count`.
    """
    sections = {
        name
        for name, field in Scenario.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    of_scenario = {
        key: value
        for key, value in settings.items()
        if key in ("slots", "nested") or ("." in key and key.partition(".")[0] in sections)
    }
    return of_scenario, {key: v for key, v in settings.items() if key not in of_scenario}


def read_scenario(path: str | os.PathLike[str]) -> Scenario:
    """Read a scenario from a TOML file; files it names are looked up beside it.

    Parameters
    ----------
    path
        Of the file, or the name of a shipped scenario, such as "tiny".

    Raises
    ------
    FormatError
        The file is missing or not TOML, a key is unknown (the nearest known one is suggested), or
        a value is out of range.
    """
    file = find(path, "scenario")
    scenario = read_model(Scenario, file)
    scenario._path = file
    return scenario


def _family_spec(family: FamilySection) -> FamilySpec:
    given = family.model_dump(exclude_none=True)
    if isinstance(given.get("freeze_ratio"), list):
        given["freeze_ratio"] = tuple(given["freeze_ratio"])
    return FamilySpec(**given)


def _nearest(user_position: FloatArray, node_position: FloatArray) -> IntArray:
    apart = np.linalg.norm(user_position[:, None] - node_position, axis=2)
    return np.asarray(apart.argmin(axis=1))


def _rng(seed: int, part: str, number: int | None = None) -> np.random.Generator:
    entropy = [seed, zlib.crc32(part.encode())]
    if number is not None:
        entropy.append(number + 1)  # zeros at the end count as nothing: path 0 would be no path
    return np.random.default_rng(np.random.SeedSequence(entropy))


def _draw(
    rng: np.random.Generator, span: float | list[float], shape: tuple[int, ...]
) -> FloatArray:
    low, high = span if isinstance(span, list) else (span, span)
    if low > high:
        raise ValueError(f"links: [{low}, {high}] is not allowed, must be [low, high]")
    return rng.uniform(low, high, shape)
