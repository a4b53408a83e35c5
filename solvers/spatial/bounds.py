"""Certified lower bounds on the time on the air of the slots of an instance, spatial delivery.

The bounds and their certificates are in `finecast.solvers.spatial.certificate`, the proofs in
docs/methods.md, "Spatial bounds". Nothing depends on the placement or on how blocks are grouped
into messages. A user's needs count every block of its model once. The condition of a message for
fewer users or from fewer nodes follows from that of a user group that contains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, checked
from finecast.problem.instance import Instance
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.node_set_tables import members
from finecast.solvers.restrictions import Messages, messages
from finecast.solvers.rounding import EPSILON
from finecast.solvers.spatial.certificate import Downlink, time_bound, user_bound

FEWEST_STEPS = 20
"""Adam steps of a search, at least."""

MOST_STEPS = 200
"""Adam steps of a search, at most. 60 end within a few per cent of the best point, 200 within a few
per mille."""

WORK = 2e8
"""Messages looked at times dimension^3 times steps that a search may cost; it gets fewer steps
where it would cost more."""

BRANCHING = 1e7
"""Messages looked at times dimension^2 times steps that boxes may cost, all slots together."""


def slot_bounds(
    instance: Instance,
    plans: Sequence[Messages] | None = None,
    *,
    robust: bool = True,
    steps: int | None = None,
    deadline: Deadline = NEVER,
) -> FloatArray:
    """Return (T,) s: certified lower bounds on the time on the air of every slot.

    Without `plans` the bounds hold for any placement, messages, beams and modes that the judge
    accepts, and for sequential delivery too. With plans they hold for messages to these listeners
    from nodes that are allowed. A bound is infinite where a user is beyond reach.

    Parameters
    ----------
    instance
        The problem.
    plans
        Per slot, who may be sent what by whom in a restricted system.
    robust
        Rates hold over the error balls; otherwise for the estimates only.
    steps
        Adam steps in search of dual points of a single box. By default as many as take seconds,
        and then the modes are divided into boxes.
    deadline
        When to stop the search. What it found by then is still certified.

    Examples
    --------
    >>> import finecast
    >>> from finecast.solvers.spatial.bounds import slot_bounds
    >>> instance = finecast.read_scenario("tiny").generate(seed=1)
    >>> bounds, result = slot_bounds(instance), finecast.solve(instance, "greedy")
    >>> print(f"{bounds.sum():.4f} s on the air at least, delay {result.delay:.4f} s")
    0.1101 s on the air at least, delay 0.1377 s
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
    return downlink(
        instance.normalised_channel[slot],
        instance.error_of(slot, robust),
        network.power,
        plan.users,
        bits * (np.log(2.0) / network.bandwidth),
        senders=members(plan.allowed, instance.nodes),
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

    Examples
    --------
    Three users in orthogonal directions of one node share its power: log(1 + 30/3) each.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.bounds import broadcast_bounds, downlink
    >>> channel, error = np.sqrt(30.0) * np.eye(3)[:, None], np.zeros((3, 1))
    >>> case = downlink(channel, error, [1.0], np.eye(3, dtype=bool), [2.0, 2.0, 2.0])
    >>> print(f"{broadcast_bounds([case])[0]:.3f} s, optimum {2 / np.log(11):.3f} s")
    0.834 s, optimum 0.834 s
    """
    from finecast.solvers.spatial.dual_search import ACTIVE, search  # comes with torch

    bounds = np.array([user_bound(d, cap) for d in downlinks])
    # One user alone is exact; a user that no node reaches makes the bound infinite.
    looser = [t for t, d in enumerate(downlinks) if len(d.nats) > 1 and np.isfinite(bounds[t])]
    pruned = [without_dominated(downlinks[t]) for t in looser]
    branching = BRANCHING if steps is None else 0.0
    # Large problems get fewer steps, so that the search takes seconds.
    if steps is None:
        work = sum(
            min(len(d.listeners), ACTIVE) * min(len(d.nats), d.channel[0].size) ** 3 for d in pruned
        )
        steps = int(np.clip(WORK / max(work, 1), FEWEST_STEPS, MOST_STEPS))
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
    """Return what the users must receive; users and messages that need nothing are left out.

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

    Examples
    --------
    Users 0 and 1 get a message of 2 nat/Hz together, user 1 another one of 3. User 2 gets nothing.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.bounds import downlink
    >>> listeners = [[True, True, False], [False, True, False]]
    >>> case = downlink(np.ones((3, 1, 2)), np.zeros((3, 1)), [4.0], listeners, [2.0, 3.0])
    >>> print(case.nats, case.channel[:, 0, 0].real)
    [2. 5.] [2. 2.]
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

    The ratio computed is within (A + 8) u of its exact value. The channel is shrunken by a little
    less, so that the result is in the ball.

    Parameters
    ----------
    channel, error
        (K, N, A) and (K, N).

    Examples
    --------
    >>> import numpy as np
    >>> from finecast.solvers.spatial.bounds import shrunken
    >>> print(shrunken(np.array([[[3.0, 4.0]]]), np.array([[1.0]])).round(9))
    [[[2.4 3.2]]]
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

    Examples
    --------
    >>> import numpy as np
    >>> from finecast.solvers.spatial.bounds import downlink, without_dominated
    >>> listeners = [[True, True], [False, True]]
    >>> case = downlink(np.ones((2, 1, 1)), np.zeros((2, 1)), [1.0], listeners, [1.0, 1.0])
    >>> print(without_dominated(case).listeners)
    [[ True  True]]
    """
    both: BoolArray = np.unique(np.hstack([d.listeners, d.senders]), axis=0)
    within = np.all(~both[:, None] | both, axis=2)
    np.fill_diagonal(within, False)
    kept = both[~np.any(within, axis=1)]
    users = len(d.nats)
    return replace(d, listeners=kept[:, :users], senders=kept[:, users:])
