"""Instance: all data of one problem, frozen and validated, in one `.npz` file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finecast.problem.areas import area_of_users, area_weights, checked_areas, needed_by_area
from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray, checked
from finecast.problem.demand import Demand, popularity
from finecast.problem.drawing import drawn
from finecast.problem.files import content_hash, read_archive, reading, write_archive
from finecast.problem.library import ModelLibrary
from finecast.problem.network import Network
from finecast.problem.wording import gigabytes, html_table

Delivery = Literal["sequential", "spatial"]
Schedule = Literal["sequential", "pipelined"]

FORMAT = "finecast-instance"
VERSION = 2
SINCE = {"areas": 2, "deadline": 2}
"""The version that an entry of the file came with. A file without any of them is of version 1."""


@dataclass(frozen=True, eq=False, repr=False)
class Instance:
    """One problem: what may be cached, where, who asks for it, and over which channels.

    Parameters
    ----------
    library
        Parameter blocks and models: s_j, B.
    network
        Edge nodes: S_n, P_n, C, W, sigma^2, eta.
    demand
        The demand model: what is known of the requests before slot 0.
    requests
        (T, K), model requested by user k in slot t, -1 for none.
    channel_estimate
        (T, K, N, A), estimated amplitude gain from every antenna of node n to user k.
    channel_error
        (T, K, N), radius of the error ball of each node's channel, amplitude gain.
    channel_true
        (T, K, N, A), one realisation inside the balls; solvers never read it, the judge does.
    delivery
        `sequential`: one message on the air at a time; `spatial`: several may share the air.
    schedule
        Which delay is the objective: `sequential` (nothing overlaps) or `pipelined`.
    user_position
        (K, 2) in metres, for pictures only; of users who move, where they begin.
    name
        Where the instance comes from, for people.
    seed
        The seed it was drawn with, for people.
    areas
        (N,), the area that each node belongs to, numbered from 0 without a gap; empty for one area.
    deadline
        (M,), seconds within which a download of each model should end, infinite for none; empty if
        none has any. It is reported, and no method aims at it.
    user_track
        (T, K, 2) in metres, for pictures only: users who move. None where all stay.

    Raises
    ------
    ValueError
        Shapes disagree, a number is out of range, or a true channel lies outside its ball.
    """

    library: ModelLibrary
    network: Network
    demand: Demand
    requests: IntArray
    channel_estimate: ComplexArray
    channel_error: FloatArray
    channel_true: ComplexArray
    delivery: Delivery = "sequential"
    schedule: Schedule = "sequential"
    user_position: FloatArray | None = None
    name: str = ""
    seed: int | None = None
    areas: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    deadline: FloatArray = field(default_factory=lambda: np.zeros(0))
    user_track: FloatArray | None = None

    def __post_init__(self) -> None:
        estimate = np.asarray(self.channel_estimate)
        if estimate.ndim != 4 or 0 in estimate.shape:
            raise ValueError(
                f"channel_estimate: shape is {estimate.shape}, expected (slots, users, nodes, "
                "antennas), all at least 1"
            )
        slots, users, nodes, antennas = estimate.shape
        if nodes != self.network.nodes:
            raise ValueError(
                f"channel_estimate: has {nodes} nodes, the network has {self.network.nodes}"
            )
        expected = (slots, users, self.library.models)
        if self.demand.preference.shape != expected:
            raise ValueError(
                f"demand.preference: shape is {self.demand.preference.shape}, expected {expected} "
                "= (slots, users, models)"
            )
        if self.delivery not in ("sequential", "spatial"):
            raise ValueError(f"delivery: {self.delivery!r}, expected 'sequential' or 'spatial'")
        if self.schedule not in ("sequential", "pipelined"):
            raise ValueError(f"schedule: {self.schedule!r}, expected 'sequential' or 'pipelined'")
        if not isinstance(self.name, str):
            raise ValueError(f"name: {self.name!r} is not allowed, must be a text")
        if self.seed is not None and type(self.seed) is not int:
            raise ValueError(f"seed: {self.seed!r} is not allowed, must be a whole number or None")
        full = (slots, users, nodes, antennas)
        arrays = {
            "requests": checked(
                "requests",
                self.requests,
                "int",
                (slots, users),
                low=-1,
                high=self.library.models - 1,
            ),
            "channel_estimate": checked("channel_estimate", estimate, "complex", full),
            "channel_error": checked("channel_error", self.channel_error, "float", full[:3], low=0),
            "channel_true": checked("channel_true", self.channel_true, "complex", full),
            "areas": checked_areas(self.areas, nodes),
            "deadline": _checked_deadline(self.deadline, self.library.models),
        }
        if self.user_position is not None:
            arrays["user_position"] = checked(
                "user_position", self.user_position, "float", (users, 2)
            )
        if self.user_track is not None:
            arrays["user_track"] = checked(
                "user_track", self.user_track, "float", (slots, users, 2)
            )
        for name, array in arrays.items():
            object.__setattr__(self, name, array)
        deviation = np.linalg.norm(self.channel_true - self.channel_estimate, axis=3)
        # Rounding of the difference scales with the channel, not with a possibly zero radius.
        slack = 1e-9 * (self.channel_error + np.linalg.norm(self.channel_estimate, axis=3))
        outside = np.argwhere(deviation > self.channel_error + slack)
        if len(outside):
            t, k, n = (int(i) for i in outside[0])
            raise ValueError(
                f"channel_true[{t}, {k}, {n}]: is {deviation[t, k, n]:.3g} from the estimate, must "
                f"be within channel_error = {self.channel_error[t, k, n]:.3g}"
            )

    def __repr__(self) -> str:
        return (
            f"Instance(name={self.name!r}, seed={self.seed}, slots={self.slots}, "
            f"users={self.users}, nodes={self.nodes}, models={self.library.models}, "
            f"blocks={self.blocks})"
        )

    def _repr_html_(self) -> str:
        """Return the sizes as a table, for notebooks."""
        library = self.library
        return html_table(
            [
                ("instance", f"{self.name or 'without a name'}, seed {self.seed}"),
                ("slots, users", f"{self.slots}, {self.users}"),
                ("nodes x antennas", f"{self.nodes} x {self.antennas}"),
                ("library", f"{library.models} models, {library.blocks} parameter blocks"),
                ("each block once", gigabytes(float(library.block_size.sum()))),
                ("storage of all nodes", gigabytes(float(self.network.storage.sum()))),
                ("delivery, schedule", f"{self.delivery}, {self.schedule}"),
            ]
        )

    def plot(self, solution: Any = None, slot: int = 0) -> Any:
        """Return a picture of the network, with a solution also of its caches and messages.

        Parameters
        ----------
        solution
            Decisions of the same shape; None for the network alone.
        slot
            Which slot.

        Raises
        ------
        ValueError
            There is no such slot, or the shapes differ.
        """
        return drawn(self, solution, slot)

    @property
    def slots(self) -> int:
        """T, the number of time slots."""
        return int(self.requests.shape[0])

    @property
    def users(self) -> int:
        """K, the number of users."""
        return int(self.requests.shape[1])

    @property
    def nodes(self) -> int:
        """N, the number of edge nodes."""
        return int(self.channel_estimate.shape[2])

    @property
    def antennas(self) -> int:
        """A, the number of antennas of a node."""
        return int(self.channel_estimate.shape[3])

    @property
    def models(self) -> int:
        """M, the number of models."""
        return self.library.models

    @property
    def blocks(self) -> int:
        """J, the number of parameter blocks."""
        return self.library.blocks

    @property
    def area_count(self) -> int:
        """The number of areas; 1 is the problem of the formulation."""
        return int(self.areas.max()) + 1

    @cached_property
    def user_area(self) -> IntArray:
        """(T, K), the area of user k's strongest node in slot t, -1 where it requests nothing."""
        area = area_of_users(self.channel_estimate, self.requests, self.areas)
        area.setflags(write=False)
        return area

    @cached_property
    def area_weight(self) -> FloatArray:
        """(T, areas), w_a: share of the requesting users of slot t that belong to the area."""
        weight = area_weights(self.user_area, self.area_count)
        weight.setflags(write=False)
        return weight

    @cached_property
    def area_needs(self) -> BoolArray:
        """(T, areas, J): a user of the area needs block j in slot t."""
        table = needed_by_area(self.wanted, self.user_area, self.area_count)
        table.setflags(write=False)
        return table

    @cached_property
    def popularity(self) -> FloatArray:
        """(T, K, M), probability that user k requests model m in slot t, known before slot 0."""
        table = popularity(self.demand)
        table.setflags(write=False)
        return table

    @cached_property
    def wanted(self) -> BoolArray:
        """(T, K, J): user k needs block j in slot t, i.e. k is in the user group U_j."""
        requested = (self.requests >= 0)[:, :, None]
        table = np.asarray(self.library.model_blocks[self.requests] & requested)
        table.setflags(write=False)
        return table

    @cached_property
    def needed(self) -> BoolArray:
        """(T, J): somebody needs block j in slot t, i.e. j is in J^t."""
        table = np.asarray(self.wanted.any(axis=1))
        table.setflags(write=False)
        return table

    @cached_property
    def normalised_channel(self) -> ComplexArray:
        """(T, K, N, A), g = h / sigma, per square root of watt."""
        channel = np.asarray(self.channel_estimate / np.sqrt(self.network.noise_power))
        channel.setflags(write=False)
        return channel

    @cached_property
    def normalised_error(self) -> FloatArray:
        """(T, K, N), eps = e / sigma, per square root of watt."""
        error = np.asarray(self.channel_error / np.sqrt(self.network.noise_power))
        error.setflags(write=False)
        return error

    def error_of(self, slot: int, robust: bool) -> FloatArray:
        """Return (K, N): the normalised error that a plan of one slot reckons with.

        A robust plan reckons with the error balls, any other with none.
        """
        error = self.normalised_error[slot]
        return error if robust else np.zeros_like(error)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything the instance says."""
        return content_hash(*_pack(self))


def user_groups(wanted: BoolArray) -> tuple[BoolArray, IntArray]:
    """Return the distinct user groups of one slot and the group of every block.

    Parameters
    ----------
    wanted
        (K, J): user k needs block j.

    Returns
    -------
    groups
        (G, K) bool, distinct non-empty user groups, in the order of their first block.
    group
        (J,) index into `groups`, -1 for a block that nobody needs.
    """
    needed = np.flatnonzero(wanted.any(axis=0))
    group = np.full(wanted.shape[1], -1, dtype=np.int64)
    if not len(needed):
        return np.zeros((0, wanted.shape[0]), dtype=bool), group
    _, block_of_group, inverse = np.unique(
        np.packbits(wanted[:, needed], axis=0), axis=1, return_index=True, return_inverse=True
    )
    order = np.argsort(block_of_group)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    group[needed] = rank[inverse.ravel()]
    return wanted[:, needed[block_of_group[order]]].T.copy(), group


def _checked_deadline(deadline: FloatArray, models: int) -> FloatArray:
    """Return (M,) deadlines, or an empty array where none is finite.

    Raises
    ------
    ValueError
        The shape is another, or a deadline is no number > 0.
    """
    given = np.asarray(deadline, dtype=np.float64)
    shape = (0,) if given.shape == (0,) else (models,)
    if given.shape != shape:
        raise ValueError(f"deadline: shape is {given.shape}, expected {shape}")
    wrong = np.flatnonzero(~(given > 0))
    if len(wrong):
        m = int(wrong[0])
        raise ValueError(f"deadline[{m}]: {given[m]} is not allowed, must be > 0 s")
    if not np.isfinite(given).any():
        given = np.zeros(0)
    given = given.copy()
    given.setflags(write=False)
    return given


def write_instance(path: str | os.PathLike[str], instance: Instance) -> str:
    """Write an instance to an `.npz` file and return its content hash.

    Raises
    ------
    FormatError
        The file cannot be written.
    """
    header, arrays = _pack(instance)
    version = max((since for entry, since in SINCE.items() if entry in arrays), default=1)
    return write_archive(path, FORMAT, version, header, arrays)


def read_instance(path: str | os.PathLike[str]) -> Instance:
    """Read an instance from an `.npz` file.

    Raises
    ------
    FormatError
        The file is missing, damaged, foreign, of a newer version, or its data break a rule.
    """
    with reading(path):
        return _unpack(*read_archive(path, FORMAT, VERSION, SINCE))


def _pack(instance: Instance) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    library, network, demand = instance.library, instance.network, instance.demand
    unlimited = np.isinf(network.max_spectral_efficiency)
    header = {
        "name": instance.name,
        "seed": instance.seed,
        "delivery": instance.delivery,
        "schedule": instance.schedule,
        "bandwidth": network.bandwidth,
        "noise_power": network.noise_power,
        "max_spectral_efficiency": None if unlimited else network.max_spectral_efficiency,
        "persistence": demand.persistence,
        "block_names": list(library.block_names),
        "model_names": list(library.model_names),
        "model_family": list(library.model_family),
    }
    if network.node_names:
        header["node_names"] = list(network.node_names)
    arrays: dict[str, NDArray[Any]] = {
        "block_size": library.block_size,
        "model_blocks": library.model_blocks,
        "storage": network.storage,
        "power": network.power,
        "backhaul_rate": network.backhaul_rate,
        "cloud_rate": network.cloud_rate,
        "preference": demand.preference,
        "activity": demand.activity,
        "requests": instance.requests,
        "channel_estimate": instance.channel_estimate,
        "channel_error": instance.channel_error,
        "channel_true": instance.channel_true,
    }
    if network.node_position is not None:
        arrays["node_position"] = network.node_position
    if instance.user_position is not None:
        arrays["user_position"] = instance.user_position
    if instance.user_track is not None:
        arrays["user_track"] = instance.user_track
    if instance.area_count > 1:
        arrays["areas"] = instance.areas
    if len(instance.deadline):
        arrays["deadline"] = instance.deadline
    return header, arrays


def _unpack(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Instance:
    unlimited = header["max_spectral_efficiency"] is None
    return Instance(
        library=ModelLibrary(
            block_size=arrays["block_size"],
            model_blocks=arrays["model_blocks"],
            block_names=tuple(header["block_names"]),
            model_names=tuple(header["model_names"]),
            model_family=tuple(header["model_family"]),
        ),
        network=Network(
            storage=arrays["storage"],
            power=arrays["power"],
            backhaul_rate=arrays["backhaul_rate"],
            cloud_rate=arrays["cloud_rate"],
            bandwidth=header["bandwidth"],
            noise_power=header["noise_power"],
            max_spectral_efficiency=np.inf if unlimited else header["max_spectral_efficiency"],
            node_position=arrays.get("node_position"),
            node_names=tuple(header.get("node_names", ())),
        ),
        demand=Demand(
            preference=arrays["preference"],
            persistence=header["persistence"],
            activity=arrays["activity"],
        ),
        requests=arrays["requests"],
        channel_estimate=arrays["channel_estimate"],
        channel_error=arrays["channel_error"],
        channel_true=arrays["channel_true"],
        delivery=header["delivery"],
        schedule=header["schedule"],
        user_position=arrays.get("user_position"),
        name=header["name"],
        seed=header["seed"],
        areas=arrays.get("areas", np.zeros(0, dtype=np.int64)),
        deadline=arrays.get("deadline", np.zeros(0)),
        user_track=arrays.get("user_track"),
    )
