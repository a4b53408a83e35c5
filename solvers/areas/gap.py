"""What the gap of a plan of areas is made of."""

from __future__ import annotations

import numpy as np

from finecast.problem.sinr import rate
from finecast.solvers.areas.on_air import Plan, migration_seconds
from finecast.solvers.areas.rates import Ready


def gap_parts(ready: Ready, plan: Plan) -> dict[str, float]:
    """Return the parts of delay less bound, s; they sum to it.

    `interference`: local messages against the same alone on the air; `beams`: messages alone
    against the upper bounds of their rates; `migration` and `wide`: migrations, and wide messages
    at these bounds, against those on the paths of the bound; `rest`: local messages likewise, and
    what storage prices leave open.

    Parameters
    ----------
    ready, plan
        The problem with its bound, and the plan.
    """
    city, network = ready.city, ready.city.instance.network
    size = city.instance.library.block_size.astype(np.float64)
    wide, local = np.sum([slot.seconds(size) for slot in plan.beams], axis=0)
    alone = at_bound = wide_at_bound = 0.0
    for t, slot in enumerate(plan.beams):
        for a, g, q, weight in zip(
            slot.local.index,
            slot.local.group,
            slot.local.sender,
            slot.local.messages.weight,
            strict=True,
        ):
            rates = ready.prepared[a].rates[t]
            # Joint beams may beat those of a message alone that was never searched for by itself.
            reached = max(float(rates.one_message[g, q]), 1e-300)
            alone += weight / reached
            at_bound += weight / max(float(rates.bound[g, q]), 1e-300)
        amplitude = slot.wide.sends @ city.whole.reach[t].T
        least = np.where(slot.wide.users, amplitude, np.inf).min(axis=1)
        bits = 8.0 * (slot.wide.blocks @ size)
        limit = rate(least**2, network.bandwidth, network.max_spectral_efficiency)
        limit = np.minimum(limit, ready.wide.bound[t, slot.wide.kind])
        wide_at_bound += float((bits / np.maximum(limit, 1e-300)).sum())
    alone = min(alone, float(local))
    moved, sent = _of_bound(ready)
    parts = {
        "interference": float(local) - alone,
        "beams": alone - at_bound + float(wide) - wide_at_bound,
        "migration": sum(migration_seconds(city, plan.state)) - moved,
        "wide": wide_at_bound - sent,
    }
    parts["rest"] = plan.delay - ready.point.bound - sum(parts.values())
    return parts


def _of_bound(ready: Ready) -> tuple[float, float]:
    """Return migrations and wide messages on the paths of the bound, s."""
    moved = sent = 0.0
    point = ready.point
    for a, (table, part) in enumerate(zip(ready.tables, point.parts, strict=True)):
        mine = table.of_whole
        size = table.classes.size
        second = table.classes.second
        assert second is not None
        theta = np.where(mine >= 0, point.shares.migration[:, a, mine], 0.0)
        share = np.where(mine >= 0, point.shares.broadcast[:, a, mine], 0.0)
        weight = np.where(part.wide, theta, table.weights.migration[:, None])
        moved += float((weight * part.paths.migration * size).sum())
        seconds = np.take_along_axis(second.broadcast, part.paths.sender[:, None], axis=1)[:, 0]
        sent += float((np.where(part.wide, share * seconds, 0.0) * size).sum())
    return moved, sent
