"""Rate tables on disk: beams and dual points, from which every number is proven again.

A file holds no rate and no bound. What the beams reach is computed again on loading, and so are the
bounds, which hold for any guess of a dual point (`finecast.solvers.beamforming.kernel.again`). So a
table that somebody has changed can cost rates and proofs, and is never believed.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as cache_once
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.problem.files import FormatError, content_hash, read_archive, write_archive
from finecast.problem.instance import Instance
from finecast.problem.tolerances import POWER_RELATIVE
from finecast.problem.version import FINECAST_VERSION
from finecast.solvers.node_set_tables import members

FORMAT = "finecast-rates"
VERSION = 3


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept of P user sets by F node sets each.

    Parameters
    ----------
    beam
        (P, F, N, A) complex, square root of watt.
    weight, slope
        (P, F, K) and (P, F, K), of the dual points (`finecast.solvers.beamforming.by_name.Proof`).
    price
        (P, F, N), likewise.
    """

    beam: ComplexArray
    weight: FloatArray
    slope: FloatArray
    price: FloatArray

    @classmethod
    def room(cls, node_sets: IntArray, instance: Instance) -> Kept:
        """Return zeros for user sets by their node sets (P, F)."""
        nodes, antennas = instance.nodes, instance.antennas
        beam = np.zeros((*node_sets.shape, nodes, antennas), dtype=np.complex128)
        weight, slope = np.zeros((2, *node_sets.shape, instance.users))
        return cls(beam, weight, slope, np.zeros((*node_sets.shape, nodes)))


def table_key(
    instance: Instance,
    users: Sequence[BoolArray],
    node_sets: Sequence[IntArray],
    *,
    beamforming: str,
    robust: bool,
    seed: int,
) -> str:
    """Return a hash of all that beams and dual points depend on, and of nothing else.

    Parameters
    ----------
    instance, users, node_sets, beamforming, robust, seed
        As in `finecast.solvers.rate_table.rate_table`.
    """
    header = {
        "beamforming": beamforming,
        "robust": robust,
        "seed": seed,
        "version": VERSION,
        "finecast": FINECAST_VERSION,
        "kernel": _code_hash(),
        "libraries": [np.__version__, package_version("torch")],
    }
    return hashlib.sha256(
        content_hash(
            header,
            {
                "channel": instance.normalised_channel,
                "error": instance.normalised_error,
                "power": instance.network.power,
                "users": np.concatenate(users),
                "count": np.array([len(u) for u in users]),
                "node_sets": np.concatenate(node_sets),
            },
        ).encode()
    ).hexdigest()[:32]


@cache_once
def _code_hash() -> str:
    """Return a hash of the sources that beams come from: the version of the kernel."""
    home = Path(__file__).parent
    sources = sorted((home / "beamforming").rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def keep(path: Path, kept: Kept) -> None:
    """Keep a table for later; where that cannot be, a warning says so, and no more is lost."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_archive(path, FORMAT, VERSION, {}, vars(kept))
    except (FormatError, OSError) as error:
        warnings.warn(f"rate_cache: the rates are not kept: {error}", stacklevel=2)


def read_kept(path: Path, node_sets: IntArray, instance: Instance) -> Kept | None:
    """Return a kept table; None where there is none or it is of no use, and is made anew.

    Its arrays must have the right shapes, and its beams must keep to their nodes and powers.

    Parameters
    ----------
    path
        The file.
    node_sets
        (P, F) the node sets of all user sets.
    instance
        The problem.
    """
    room = Kept.room(node_sets, instance)
    try:
        _, arrays = read_archive(path, FORMAT, VERSION)
        kept = Kept(**{name: arrays[name] for name in vars(room)})
    except (FormatError, KeyError):
        return None
    for name, expected in vars(room).items():
        found = getattr(kept, name)
        if found.dtype != expected.dtype or found.shape != expected.shape:
            return None
    if not np.isfinite(kept.beam).all():
        return None
    sent = np.sum(np.abs(kept.beam) ** 2, axis=3)
    sends = members(node_sets, instance.nodes)
    if (sent > np.where(sends, instance.network.power, 0.0) * (1.0 + POWER_RELATIVE)).any():
        return None
    return kept
