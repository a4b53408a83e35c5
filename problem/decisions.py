"""A solution's decisions as plain rows: for JSON, data frames and people."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

CLOUD = "cloud"
"""What the rows call the cloud, where a node has its number."""

What = Literal["messages", "cache", "migrations"]


def rows(solution: Any, what: What = "messages") -> list[dict[str, Any]]:
    """Return decisions as rows of plain values.

    Parameters
    ----------
    solution
        A `finecast.problem.solution.Solution`.
    what
        `messages`: one row a message on the air in a mode, with `slot`, `message`, `mode`,
        `seconds` that the mode lasts, `users`, `nodes`, `blocks` (lists of numbers), `rate_bps` and
        `power_w` of all its nodes together. `cache`: `slot`, `node`, `block` for every copy that is
        held when the slot begins. `migrations`: `slot`, `node`, `block`, `source`, which is a node
        or "cloud".

    Raises
    ------
    ValueError
        `what` is something else.
    """
    if what == "messages":
        return [
            row
            for slot, broadcast in enumerate(solution.broadcasts)
            for row in _messages(slot, broadcast)
        ]
    if what == "cache":
        return [
            {"slot": t, "node": n, "block": j} for t, n, j in np.argwhere(solution.cache).tolist()
        ]
    if what == "migrations":
        nodes = solution.cache.shape[1]
        return [
            {"slot": t, "node": n, "block": j, "source": _source(solution.source[t, n, j], nodes)}
            for t, n, j in np.argwhere(solution.received).tolist()
        ]
    raise ValueError(f"what: {what!r} is not allowed, must be messages, cache or migrations")


def _messages(slot: int, broadcast: Any) -> list[dict[str, Any]]:
    power = broadcast.node_power.sum(axis=1)
    return [
        {
            "slot": slot,
            "message": int(i),
            "mode": int(d),
            "seconds": float(broadcast.duration[d]),
            "users": np.flatnonzero(broadcast.users[i]).tolist(),
            "nodes": np.flatnonzero(broadcast.nodes[i]).tolist(),
            "blocks": np.flatnonzero(broadcast.blocks[i]).tolist(),
            "rate_bps": float(broadcast.rate[x]),
            "power_w": float(power[x]),
        }
        for x, (d, i) in enumerate(zip(broadcast.mode, broadcast.message, strict=True))
    ]


def _source(source: Any, nodes: int) -> int | str:
    return CLOUD if int(source) == nodes else int(source)


def frame(solution: Any, what: What = "messages") -> Any:
    """Return decisions as a data frame of pandas, or of polars where only that is installed.

    Parameters
    ----------
    solution, what
        As in `rows`.

    Raises
    ------
    ImportError
        Neither is installed.
    """
    made = rows(solution, what)
    try:
        import pandas
    except ImportError:
        try:
            import polars
        except ImportError:
            raise ImportError(
                "a data frame needs pandas or polars: pip install pandas; without them use "
                "finecast.problem.decisions.rows"
            ) from None
        return polars.DataFrame(made, strict=False)
    return pandas.DataFrame(made)
