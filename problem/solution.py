"""Solution: what is cached where, what moves, and how every block goes on the air."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finecast.problem.areas import WIDE
from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray, Kind, checked
from finecast.problem.drawing import drawn
from finecast.problem.files import read_archive, reading, write_archive
from finecast.problem.sparse import (
    MOST_BYTES,
    beam_places,
    places,
    refuse_large,
    unpacked_bits,
    whole,
)
from finecast.problem.wording import html_table

FORMAT = "finecast-solution"
VERSION = 2
SINCE = {"received": 2, "area": 2}
"""The version that an entry of the file came with. Version 1 had all arrays as they are."""

MANY_NODES = 2**15 - 1
"""From so many nodes on sources take more than two bytes each."""


@dataclass(frozen=True, eq=False)
class BlockSets:
    """The blocks of I messages, as pairs: (I, J) bools would be next to nothing but zeros.

    Parameters
    ----------
    message, block
        (P,) and (P,), message i carries block j; by message, then by block, and no pair twice.
    shape
        (I, J).

    Raises
    ------
    ValueError
        A pair is out of range, or stands at the wrong place.
    """

    message: IntArray
    block: IntArray
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        pairs, (messages, blocks) = np.shape(self.message), self.shape
        for name, high in (("message", messages - 1), ("block", blocks - 1)):
            array = checked(name, getattr(self, name), "int", pairs, low=0, high=high)
            object.__setattr__(self, name, array)
        if (np.diff(self.message * blocks + self.block) <= 0).any():
            raise ValueError(
                "block: the blocks of a message must rise, and messages follow in turn"
            )

    @classmethod
    def of(cls, blocks: BoolArray) -> BlockSets:
        """Return the pairs of (I, J) bool."""
        message, block = np.divmod(np.flatnonzero(blocks), blocks.shape[1])
        return cls(message, block, (blocks.shape[0], blocks.shape[1]))

    @property
    def dense(self) -> BoolArray:
        """(I, J) bool, read-only."""
        table = np.zeros(self.shape, dtype=bool)
        table[self.message, self.block] = True
        table.setflags(write=False)
        return table


@dataclass(frozen=True, eq=False)
class Broadcast:
    """The messages of one slot and the modes that carry them.

    A *message* is a set of blocks for a set of users, sent jointly by a set of nodes. A *mode*
    lasts some seconds and has one or more messages on the air at once. The modes follow one another
    in the order given: first those of wide messages, then those of each area, all areas at once.
    How modes of one area stand among those of another means nothing. Entry x of `mode`, `message`,
    `beam` and `rate` says that message `message[x]` is on the air in mode `mode[x]`, with
    beamformer `beam[x]` at planned rate `rate[x]`.

    Parameters
    ----------
    users
        (I, K) bool, the users U_i of message i, at least one.
    nodes
        (I, N) bool, the cooperating nodes Q_i, at least one.
    blocks
        (I, J) bool, the blocks that message i carries, at least one; taken as `BlockSets` too. Only
        `sets` is kept: the bools are made anew each time.
    duration
        (D,) seconds that each mode lasts.
    mode, message
        (X,) which message is on the air in which mode; no pair twice.
    beam
        (X, N, A) complex, stacked beamformer, square root of watt.
    rate
        (X,) planned rate, bit/s.
    area
        (I,) the area that message i stays within, -1 for a wide one; empty if all are wide. The
        messages of a mode have the same.

    Raises
    ------
    ValueError
        Shapes disagree, a number is out of range, a message or a mode is empty, or messages of two
        areas share a mode.
    """

    users: BoolArray
    nodes: BoolArray
    blocks: BoolArray
    duration: FloatArray
    mode: IntArray
    message: IntArray
    beam: ComplexArray
    rate: FloatArray
    area: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sets: BlockSets = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given: Any = self.blocks
        shape = given.shape if isinstance(given, BlockSets) else np.shape(given)
        if len(shape) != 2:
            raise ValueError(f"blocks: has {len(shape)} axes, expected 2")
        for name, axes in (("users", 2), ("nodes", 2), ("duration", 1), ("beam", 3)):
            if np.ndim(getattr(self, name)) != axes:
                raise ValueError(
                    f"{name}: has {np.ndim(getattr(self, name))} axes, expected {axes}"
                )
        messages, nodes = self.nodes.shape
        modes, on_air = len(self.duration), len(self.beam)
        shapes = {
            "users": (messages, self.users.shape[1]),
            "nodes": (messages, nodes),
        }
        if not isinstance(given, BlockSets):
            given = BlockSets.of(checked("blocks", given, "bool", (messages, shape[1])))
        elif shape[0] != messages:
            raise ValueError(f"blocks: are of {shape[0]} messages, expected {messages}")
        arrays = {name: checked(name, getattr(self, name), "bool", shapes[name]) for name in shapes}
        arrays["duration"] = checked("duration", self.duration, "float", (modes,), low=0)
        arrays["mode"] = checked("mode", self.mode, "int", (on_air,), low=0, high=modes - 1)
        arrays["message"] = checked(
            "message", self.message, "int", (on_air,), low=0, high=messages - 1
        )
        arrays["beam"] = checked("beam", self.beam, "complex", (on_air, nodes, self.beam.shape[2]))
        arrays["rate"] = checked("rate", self.rate, "float", (on_air,), low=0)
        area = np.full(messages, WIDE) if np.shape(self.area) == (0,) else self.area
        arrays["area"] = checked("area", area, "int", (messages,), low=WIDE, high=nodes - 1)
        some = {name: arrays[name].any(axis=1) for name in shapes}
        some["blocks"] = np.bincount(given.message, minlength=messages) > 0
        for name, any_ in some.items():
            empty = np.flatnonzero(~any_)
            if len(empty):
                raise ValueError(f"{name}[{empty[0]}]: message {empty[0]} has no {name}")
        idle = np.setdiff1d(np.arange(modes), arrays["mode"])
        if len(idle):
            raise ValueError(
                f"mode: no message is on the air in mode {idle[0]}, at least 1 must be"
            )
        pairs = arrays["mode"] * max(messages, 1) + arrays["message"]
        if len(np.unique(pairs)) != on_air:
            raise ValueError("message: a message is on the air twice in one mode")
        area_of_mode = np.full(modes, WIDE)
        area_of_mode[arrays["mode"]] = arrays["area"][arrays["message"]]
        other = arrays["area"][arrays["message"]] != area_of_mode[arrays["mode"]]
        if other.any():
            m = arrays["mode"][other][0]
            raise ValueError(f"area: messages of two areas share mode {m}, expected one area")
        for name, array in arrays.items():
            object.__setattr__(self, name, array)
        object.__setattr__(self, "sets", given)
        object.__delattr__(self, "blocks")

    def __getattr__(self, name: str) -> Any:
        """Return the blocks as bools."""
        if name == "blocks":
            return self.sets.dense
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def messages(self) -> int:
        """I, the number of messages."""
        return len(self.users)

    @property
    def modes(self) -> int:
        """D, the number of modes."""
        return len(self.duration)

    @cached_property
    def mode_area(self) -> IntArray:
        """(D,) the area of each mode, -1 for a wide one."""
        area = np.full(self.modes, WIDE)
        area[self.mode] = self.area[self.message]
        area.setflags(write=False)
        return area

    @property
    def carried(self) -> tuple[IntArray, IntArray]:
        """(P,) messages and (P,) blocks, the pairs (i, j) such that message i carries block j."""
        return self.sets.message, self.sets.block

    @cached_property
    def node_power(self) -> FloatArray:
        """(X, N) W, what node n radiates for transmission x."""
        return np.asarray(np.sum(self.beam.real**2 + self.beam.imag**2, axis=2))

    def message_size(self, block_size: IntArray) -> FloatArray:
        """Return (I,) byte, the size of every message, from the (J,) sizes of the blocks."""
        message, block = self.carried
        return np.bincount(message, block_size[block], self.messages).astype(np.float64)


def silence(users: int, nodes: int, blocks: int, antennas: int) -> Broadcast:
    """Return the broadcast of a slot in which nothing is sent."""
    return Broadcast(
        users=np.zeros((0, users), dtype=bool),
        nodes=np.zeros((0, nodes), dtype=bool),
        blocks=np.zeros((0, blocks), dtype=bool),
        duration=np.zeros(0),
        mode=np.zeros(0, dtype=np.int64),
        message=np.zeros(0, dtype=np.int64),
        beam=np.zeros((0, nodes, antennas), dtype=np.complex128),
        rate=np.zeros(0),
    )


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """All decisions of an instance.

    Parameters
    ----------
    cache
        (T, N, J) bool, node n holds block j when slot t begins.
    source
        (T, N, J) int16, where node n receives block j from in slot t: -1 not at all, 0 to N - 1
        the node, N the cloud.
    broadcasts
        The messages and modes of each slot, T of them.
    planned
        What the planned rates claim: `guaranteed` (they hold over all error balls) or `nominal`
        (they hold for the estimated channels: a plan that ignores errors).
    instance_hash
        Content hash of the instance it was made for, empty if unknown.
    method
        What made it, for people.
    restrict
        Names of the restrictions it was made under, by commas. One of them, "coarse", says that its
        blocks are whole models: the judge reads it so.

    Raises
    ------
    ValueError
        Shapes disagree or a number is out of range.
    """

    cache: BoolArray
    source: NDArray[Any]
    broadcasts: tuple[Broadcast, ...]
    planned: Literal["guaranteed", "nominal"] = "guaranteed"
    instance_hash: str = ""
    method: str = ""
    restrict: str = ""

    def __post_init__(self) -> None:
        if np.ndim(self.cache) != 3 or 0 in np.shape(self.cache):
            raise ValueError(
                f"cache: shape is {np.shape(self.cache)}, expected (slots, nodes, blocks), "
                "all at least 1"
            )
        slots, nodes, blocks = np.shape(self.cache)
        object.__setattr__(
            self, "cache", checked("cache", self.cache, "bool", (slots, nodes, blocks))
        )
        kind: Kind = "short" if nodes < MANY_NODES else "int"
        source = checked("source", self.source, kind, self.cache.shape, low=-1, high=nodes)
        object.__setattr__(self, "source", source)
        if self.planned not in ("guaranteed", "nominal"):
            raise ValueError(f"planned: {self.planned!r}, expected 'guaranteed' or 'nominal'")
        for name in ("instance_hash", "method"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: {getattr(self, name)!r} is not allowed, must be a text")
        if not isinstance(self.restrict, str):
            raise ValueError(f"restrict: {self.restrict!r}, expected names by commas")
        object.__setattr__(self, "broadcasts", tuple(self.broadcasts))
        if len(self.broadcasts) != slots:
            raise ValueError(f"broadcasts: {len(self.broadcasts)} of them, expected {slots}")
        for t, broadcast in enumerate(self.broadcasts):
            if (broadcast.nodes.shape[1], broadcast.sets.shape[1]) != (nodes, blocks):
                raise ValueError(
                    f"broadcasts[{t}]: is for {broadcast.nodes.shape[1]} nodes and "
                    f"{broadcast.sets.shape[1]} blocks, the caches have {nodes} and {blocks}"
                )
            radio, radio_of_slot_0 = (
                (b.users.shape[1], b.beam.shape[2]) for b in (broadcast, self.broadcasts[0])
            )
            if radio != radio_of_slot_0:
                raise ValueError(
                    f"broadcasts[{t}]: is for (users, antennas) = {radio}, "
                    f"broadcasts[0] for {radio_of_slot_0}"
                )

    @property
    def received(self) -> BoolArray:
        """(T, N, J): node n receives block j in slot t."""
        return np.asarray(self.source >= 0)

    @property
    def holds(self) -> BoolArray:
        """(T, N, J): node n can send block j in slot t, since it cached or received it."""
        return np.asarray(self.cache | (self.source >= 0))

    def to_frame(self, what: str = "messages") -> Any:
        """Return the messages, "cache" or "migrations" as a data frame of pandas or polars.

        See `finecast.problem.decisions`, which also gives plain rows.

        Raises
        ------
        ImportError
            Neither pandas nor polars is installed.
        ValueError
            `what` is something else.
        """
        from finecast.problem.decisions import frame

        return frame(self, what)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        slots, nodes, blocks = self.cache.shape
        messages = sum(broadcast.messages for broadcast in self.broadcasts)
        return (
            f"Solution(method={self.method!r}, slots={slots}, nodes={nodes}, blocks={blocks}, "
            f"copies={int(self.cache.sum())}, migrations={int(self.received.sum())}, "
            f"messages={messages})"
        )

    def _repr_html_(self) -> str:
        """Return the sizes of the decisions as a table, for notebooks."""
        slots, nodes, blocks = self.cache.shape
        messages = sum(broadcast.messages for broadcast in self.broadcasts)
        return html_table(
            [
                ("solution", self.method or "of unknown method"),
                ("slots, nodes, blocks", f"{slots}, {nodes}, {blocks}"),
                ("cached copies", f"{int(self.cache.sum())} over all slots"),
                ("migrations", str(int(self.received.sum()))),
                ("messages", str(messages)),
            ]
        )

    def plot(self, instance: Any, slot: int = 0) -> Any:
        """Return a picture of the network, the caches and the messages of a slot.

        Parameters
        ----------
        instance
            The problem that it solves.
        slot
            Which slot.

        Raises
        ------
        ValueError
            There is no such slot, or the shapes differ.
        """
        return drawn(instance, self, slot)


_COUNTED = {
    "messages": ("users", "nodes"),
    "modes": ("duration",),
    "transmissions": ("mode", "message", "beam", "rate"),
}
"""What has an entry for each message, mode and transmission."""

_PLACES = ("users", "nodes")
_SPARSE = (*_PLACES, "beam")
"""Of these a file holds the places of what is true, or not zero."""


def write_solution(path: str | os.PathLike[str], solution: Solution) -> str:
    """Write a solution to an `.npz` file and return its content hash.

    Raises
    ------
    FormatError
        The file cannot be written.
    """
    first = solution.broadcasts[0]
    header: dict[str, Any] = {
        "planned": solution.planned,
        "instance_hash": solution.instance_hash,
        "method": solution.method,
        "blocks": solution.cache.shape[2],
        "users": first.users.shape[1],
        "antennas": first.beam.shape[2],
    }
    if solution.restrict:
        header["restrict"] = solution.restrict
    # Bits, and the senders of what is received: most nodes receive next to nothing in a slot.
    received = solution.source >= 0
    arrays: dict[str, NDArray[Any]] = {
        "cache": np.packbits(solution.cache, axis=-1),
        "received": np.packbits(received, axis=-1),
        "sender": solution.source[received],
    }
    # Messages by places: each has few users, nodes and blocks.
    for counter, names in _COUNTED.items():
        arrays[counter] = np.array([len(getattr(b, names[0])) for b in solution.broadcasts])
        for name in names:
            if name not in _SPARSE:
                arrays[name] = np.concatenate([getattr(b, name) for b in solution.broadcasts])
    for name in _PLACES:
        arrays[name] = places([getattr(b, name) for b in solution.broadcasts])
    arrays["beam_place"], arrays["beam"] = beam_places([b.beam for b in solution.broadcasts])
    sets = [b.sets for b in solution.broadcasts]
    arrays["carries"] = np.concatenate([np.bincount(s.message, minlength=s.shape[0]) for s in sets])
    arrays["block"] = np.concatenate([s.block for s in sets]).astype(np.int32)
    if any((b.area != WIDE).any() for b in solution.broadcasts):
        arrays["area"] = np.concatenate([b.area for b in solution.broadcasts])
    return write_archive(path, FORMAT, VERSION, header, arrays)


def read_solution(path: str | os.PathLike[str]) -> Solution:
    """Read a solution from an `.npz` file.

    Raises
    ------
    FormatError
        The file is missing, damaged, foreign, of a newer version, or its data break a rule.
    """
    with reading(path):
        header, arrays = read_archive(path, FORMAT, VERSION, SINCE)
        newer = "received" in arrays
        if newer:
            arrays = _unpacked_caches(header["blocks"], arrays)
        slots = len(arrays["cache"])
        ends = {
            counter: np.cumsum(checked(counter, arrays[counter], "int", (slots,), low=0))
            for counter in _COUNTED
        }
        parts: dict[str, list[Any]] = {}
        for counter, names in _COUNTED.items():
            own = [name for name in names if name not in _SPARSE or not newer]
            if counter == "messages":
                own += ["area"] if "area" in arrays else []
                own += [] if newer else ["blocks"]
            for name in own:
                if len(arrays[name]) != ends[counter][-1]:
                    raise ValueError(
                        f"{name}: has {len(arrays[name])} rows, expected {ends[counter][-1]}"
                    )
                parts[name] = np.split(arrays.pop(name), ends[counter][:-1])
        if newer:
            parts |= _whole_rows(header, arrays, ends)
            parts["blocks"] = _blocks_of(header["blocks"], ends["messages"], arrays)
        return Solution(
            cache=arrays["cache"],
            source=arrays["source"],
            broadcasts=tuple(
                Broadcast(**{name: parts[name][t] for name in parts}) for t in range(slots)
            ),
            planned=header["planned"],
            instance_hash=header["instance_hash"],
            method=header["method"],
            restrict=header.get("restrict", ""),
        )


def _unpacked_caches(blocks: object, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file with caches (T, N, J) bool and sources (T, N, J)."""
    if type(blocks) is not int or blocks < 1:
        raise ValueError(f"blocks: {blocks!r} is not allowed, must be a whole number >= 1")
    rows = [np.size(arrays[name]) // -(-blocks // 8) for name in ("cache", "received")]
    needed = blocks * (rows[0] + 3 * rows[1])
    if needed > MOST_BYTES:
        raise ValueError(f"cache: takes {needed} bytes with sources, at most {MOST_BYTES} are read")
    cache = unpacked_bits("cache", arrays["cache"], blocks, 3)
    received = unpacked_bits("received", arrays["received"], blocks, 3)
    if received.shape != cache.shape:
        raise ValueError(f"received: is for {received.shape}, expected {cache.shape}")
    count = (int(received.sum()),)
    nodes = cache.shape[1]
    sender = checked("sender", arrays["sender"], "int", count, low=0, high=nodes)
    source = np.full(cache.shape, -1, np.int16 if nodes < MANY_NODES else np.int64)
    source[received] = sender
    source.setflags(write=False)
    rest = {name: array for name, array in arrays.items() if name not in ("received", "sender")}
    return {**rest, "cache": cache, "source": source}


def _blocks_of(blocks: int, ends: IntArray, arrays: dict[str, NDArray[Any]]) -> list[BlockSets]:
    """Return the blocks of the messages of every slot, of which `ends` (T,) are the last ones."""
    carries = checked("carries", arrays["carries"], "int", (int(ends[-1]),), low=0, high=blocks)
    block = checked("block", arrays["block"], "int", (int(carries.sum()),))
    until = np.concatenate([[0], np.cumsum(carries)])
    parts = []
    for own, of_slot in zip(
        np.split(carries, ends[:-1]), np.split(block, until[ends[:-1]]), strict=True
    ):
        message = np.repeat(np.arange(len(own)), own)
        parts.append(BlockSets(message, of_slot, (len(own), blocks)))
    return parts


def _whole_rows(
    header: dict[str, Any], arrays: dict[str, NDArray[Any]], ends: dict[str, IntArray]
) -> dict[str, list[NDArray[Any]]]:
    """Return users, nodes and beams of each slot from their places."""
    nodes = arrays["cache"].shape[1]
    for name in ("users", "antennas"):
        if type(header[name]) is not int or header[name] < 1:
            raise ValueError(f"{name}: {header[name]!r} is not allowed, must be a number >= 1")
    columns = {"users": header["users"], "nodes": nodes}
    messages, transmissions = int(ends["messages"][-1]), int(ends["transmissions"][-1])
    refuse_large(
        {name: messages * count for name, count in columns.items()}
        | {"beam": 16 * transmissions * nodes * header["antennas"]}
    )
    rows = {
        name: whole(name, arrays[name], None, ends["messages"], (count,))
        for name, count in columns.items()
    }
    place, beam = arrays["beam_place"], arrays["beam"]
    beam = checked("beam", beam, "complex", (len(place), header["antennas"]))
    shape = (nodes, header["antennas"])
    rows["beam"] = whole("beam_place", place, beam, ends["transmissions"], shape)
    return rows
