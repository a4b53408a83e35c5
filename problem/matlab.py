"""Instances and solutions as MATLAB files: plain arrays under the names of docs/files.md.

Numbers of nodes, blocks, messages and modes count from 0, as everywhere in finecast.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finecast.problem.files import FormatError, write_atomically
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution

MOST_BYTES = 2**31 - 2**20
"""A variable of a file of version 5 is below 2 GiB."""


def write_mat(path: str | os.PathLike[str], what: Instance | Solution) -> None:
    """Write an instance or a solution for MATLAB (`save -v7` reads and writes the same form).

    Raises
    ------
    FormatError
        The file cannot be written, or an array is too large for its form.
    """
    from scipy.io import savemat

    variables = instance_arrays(what) if isinstance(what, Instance) else solution_arrays(what)
    for name, value in variables.items():
        if isinstance(value, np.ndarray) and value.nbytes > MOST_BYTES:
            raise FormatError(path, f"{name}: {value.nbytes} bytes do not fit into a MATLAB file")
    content = io.BytesIO()
    savemat(content, variables, do_compression=True, oned_as="column")
    write_atomically(path, content.getvalue())


def instance_arrays(instance: Instance) -> dict[str, Any]:
    """Return the arrays of an instance by name, in the units of docs/files.md."""
    library, network, demand = instance.library, instance.network, instance.demand
    arrays: dict[str, Any] = {
        "format": "finecast-instance",
        "name": instance.name,
        "instance_hash": instance.content_hash,
        "delivery": instance.delivery,
        "schedule": instance.schedule,
        "block_size": library.block_size,
        "model_blocks": library.model_blocks.astype(np.uint8),
        "block_names": _cells(library.block_names),
        "model_names": _cells(library.model_names),
        "model_family": _cells(library.model_family),
        "storage": network.storage,
        "power": network.power,
        "backhaul_rate": network.backhaul_rate,
        "cloud_rate": network.cloud_rate,
        "bandwidth": network.bandwidth,
        "noise_power": network.noise_power,
        "max_spectral_efficiency": network.max_spectral_efficiency,
        "preference": demand.preference,
        "activity": demand.activity,
        "persistence": demand.persistence,
        "requests": instance.requests,
        "channel_estimate": instance.channel_estimate,
        "channel_error": instance.channel_error,
        "channel_true": instance.channel_true,
    }
    optional = {
        "node_position": network.node_position,
        "user_position": instance.user_position,
        "areas": instance.areas if instance.area_count > 1 else None,
        "deadline": instance.deadline if len(instance.deadline) else None,
    }
    return arrays | {name: value for name, value in optional.items() if value is not None}


def solution_arrays(solution: Solution) -> dict[str, Any]:
    """Return the decisions of a solution by name, in the units of docs/files.md.

    Messages, modes and transmissions of all slots stand one after another, each numbered over all.
    """
    broadcasts = solution.broadcasts
    first_mode = np.cumsum([0, *(b.modes for b in broadcasts)])
    first_message = np.cumsum([0, *(b.messages for b in broadcasts)])

    def joined(parts: list[NDArray[Any]], kind: Any = None) -> NDArray[Any]:
        whole = np.concatenate(parts)
        return whole if kind is None else whole.astype(kind)

    return {
        "format": "finecast-solution",
        "method": solution.method,
        "planned": solution.planned,
        "instance_hash": solution.instance_hash,
        "cache": solution.cache.astype(np.uint8),
        "source": solution.source.astype(np.int32),
        "message_slot": np.repeat(np.arange(len(broadcasts)), np.diff(first_message)),
        "message_users": joined([b.users for b in broadcasts], np.uint8),
        "message_nodes": joined([b.nodes for b in broadcasts], np.uint8),
        "message_blocks": joined([b.blocks for b in broadcasts], np.uint8),
        "message_area": joined([b.area for b in broadcasts]),
        "mode_slot": np.repeat(np.arange(len(broadcasts)), np.diff(first_mode)),
        "mode_duration": joined([b.duration for b in broadcasts]),
        "sent_mode": joined([b.mode + first_mode[t] for t, b in enumerate(broadcasts)]),
        "sent_message": joined([b.message + first_message[t] for t, b in enumerate(broadcasts)]),
        "sent_rate": joined([b.rate for b in broadcasts]),
        "sent_beam": joined([b.beam for b in broadcasts]),
    }


def _cells(names: tuple[str, ...]) -> NDArray[Any]:
    """Return names as a cell array."""
    cells = np.empty(len(names), dtype=object)
    cells[:] = names
    return cells
