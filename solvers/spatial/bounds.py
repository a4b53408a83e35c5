"""Certified lower bounds on the time on the air of the slots of an instance, spatial delivery.

The bounds and their certificates are in `finecast.solvers.spatial.certificate`, the proofs in
docs/methods.md, "Spatial bounds". Nothing depends on the placement, nor on how blocks are grouped
into messages: a user's needs count every block of its model once, and the condition of a
message for fewer users or from fewer nodes follows from that of a user group that contains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, checked
from finecast.problem.instance import Instance
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.restrictions import Messages, messages
from finecast.solvers.rounding import EPSILON
from finecast.solvers.spatial.certificate import Downlink, time_bound, user_bound
from finecast.solvers.spatial.dual_search import ACTIVE, search

STEPS = (20, 200)
"""Fewest and most Adam steps; 60 end within a few per cent of the best point, 200 per mille."""

WORK = 2e8
"""Messages looked at times dimension^3 times steps that a search may cost, else it gets fewer."""


BRANCHING = 1e7
"""Messages looked at times dimension^2 times steps for boxes of modes, all slots together."""


def slot_bound(
    instance: Instance, slot: int, *, robust: bool = True, steps: int | None = None
) -> float:
    """Return s: a certified lower bound on the time on the air of one slot, whatever is decided.

    Parameters
    ----------
    instance, robust, steps
        As in `slot_bounds`.
    slot
        t.
    """
    plan = messages(instance, slot, frozenset())
    cap = instance.network.max_spectral_efficiency * np.log(2.0)
    return float(
        broadcast_bounds([_of_slot(instance, slot, plan, robust)], cap=cap, steps=steps)[0]
    )


def slot_bounds(
    instance: Instance,
    plans: Sequence[Messages] | None = None,
    *,
    robust: bool = True,
    steps: int | None = None,
    deadline: Deadline = NEVER,
) -> FloatArray:
    """Return (T,) s: certified lower bounds on the time on the air of every slot.

    Without `plans` they hold for any placement, messages, beams and modes that the judge accepts,
    also for sequential delivery; with plans, for messages to these listeners from nodes that are
    allowed. Infinite where a user is beyond reach.

    Parameters
    ----------
    instance
        The problem.
    plans
        Per slot, who may be sent what by whom in a restricted system.
    robust
        Rates hold over the error balls; otherwise for the estimates only.
    steps
        Adam steps in search of dual points of a single box; by default what is done in seconds,
        and then the modes are divided into boxes.
    deadline
        When to stop; what was found by then is still certified, which takes a little longer.
    """
    if plans is None:
        plans = [messages(instance, t, frozenset()) for t in range(instance.slots)]
    downlinks = [_of_slot(instance, t, plan, robust) for t, plan in enumerate(plans)]
    cap = instance.network.max_spectral_efficiency * np.log(2.0)
    return broadcast_bounds(downlinks, cap=cap, steps=steps, deadline=deadline)


def _of_slot(instance: Instance, slot: int, plan: Messages, robust: bool) -> Downlink:
    network, needed = instance.network, plan.group >= 0
    size = instance.library.block_size[needed]
    bits = 8.0 * np.bincount(plan.group[needed], size, len(plan.of_group)) @ plan.of_group
    error = instance.normalised_error[slot]
    return downlink(
        instance.normalised_channel[slot],
        error if robust else np.zeros_like(error),
        network.power,
        plan.users,
        bits * (np.log(2.0) / network.bandwidth),
        senders=(plan.allowed[:, None] >> np.arange(instance.nodes)) & 1 == 1,
    )


def broadcast_bounds(
    downlinks: Sequence[Downlink],
    *,
    cap: float = np.inf,
    steps: int | None = None,
    deadline: Deadline = NEVER,
) -> FloatArray:
    """Return s, a certified lower bound on the time on the air of each: the largest known.

    Parameters
    ----------
    downlinks
        All of the same nodes and antennas.
    cap
        Highest rate of one message, nat/(s Hz).
    steps, deadline
        As in `slot_bounds`.
    """
    bounds = np.array([user_bound(d, cap) for d in downlinks])
    # One user alone is exact; a user that no node reaches makes the bound infinite.
    looser = [t for t, d in enumerate(downlinks) if len(d.nats) > 1 and np.isfinite(bounds[t])]
    pruned = [without_dominated(downlinks[t]) for t in looser]
    branching = BRANCHING if steps is None else 0.0
    if steps is None:
        work = sum(
            min(len(d.listeners), ACTIVE) * min(len(d.nats), d.channel[0].size) ** 3 for d in pruned
        )
        steps = int(np.clip(WORK / max(work, 1), *STEPS))
    points = search(pruned, steps, branching, deadline)
    for t, d, point in zip(looser, pruned, points, strict=True):
        bounds[t] = max(bounds[t], time_bound(d, point))
    return bounds


def downlink(
    channel: ArrayLike,
    error: ArrayLike,
    power: ArrayLike,
    listeners: ArrayLike,
    nats: ArrayLike,
    senders: ArrayLike | None = None,
) -> Downlink:
    """Return what the users must receive, without users and messages that need nothing.

    Parameters
    ----------
    channel, error, power
        g (K, N, A) and eps (K, N) normalised by the noise amplitude, 1/sqrt(W); P (N,), W.
    listeners
        (G, K) bool, user groups, or the users of each message of a plan.
    nats
        (G,) s, bits of each times ln 2 / W.
    senders
        (G, N) bool, cooperating sets of the messages of a plan; all nodes if None.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    g = checked("channel", channel, "complex", np.shape(channel))
    if g.ndim != 3:
        raise ValueError(f"channel: has {g.ndim} axes, expected (users, nodes, antennas)")
    users, nodes, _ = g.shape
    eps = checked("error", error, "float", (users, nodes), low=0)
    limit = checked("power", power, "float", (nodes,), low=0)
    heard = checked("listeners", listeners, "bool", (len(np.asarray(listeners)), users))
    size = checked("nats", nats, "float", (len(heard),), low=0)
    everywhere = np.ones((len(heard), nodes), dtype=bool)
    sent = checked("senders", everywhere if senders is None else senders, "bool", everywhere.shape)
    needed = size @ heard
    there = np.flatnonzero(needed > 0)
    return Downlink(
        channel=g[there] * np.sqrt(limit)[:, None],
        weakest=shrunken(g, eps)[there] * np.sqrt(limit)[:, None],
        error=eps[there] * np.sqrt(limit),
        nats=needed[there],
        listeners=heard[size > 0][:, there],
        senders=sent[size > 0],
    )


def shrunken(channel: ComplexArray, error: FloatArray) -> ComplexArray:
    """Return (K, N, A) g_kn (1 - eps_kn / norm(g_kn))_+, the weakest channel in the error ball.

    The ratio is within (A + 8) u of its exact value; the channel is shrunken by less than that,
    so that the result is within the ball.

    Parameters
    ----------
    channel, error
        (K, N, A) and (K, N).
    """
    norm = np.linalg.norm(channel, axis=2)
    ratio = np.divide(error, norm, out=np.zeros_like(norm), where=norm > 0)
    slack = (channel.shape[2] + 16) * EPSILON * (error > 0)
    return np.asarray(channel * np.clip(1.0 - ratio + slack, 0.0, 1.0)[..., None])


def without_dominated(d: Downlink) -> Downlink:
    """Return the same without messages whose users and senders are among those of another.

    Parameters
    ----------
    d
        Whose conditions they are; the dominated ones follow from the others.
    """
    both: BoolArray = np.unique(np.hstack([d.listeners, d.senders]), axis=0)
    within = np.all(~both[:, None] | both, axis=2)
    np.fill_diagonal(within, False)
    kept = both[~np.any(within, axis=1)]
    users = len(d.nats)
    return replace(d, listeners=kept[:, :users], senders=kept[:, users:])
