"""Beams of all local messages of a slot together, on the objective of the judge.

    minimise  sum over messages m of  b_m / log2(1 + min over k in U_m of SINR_k),
    SINR_k = max(0, |sum_n g_kn^H w_mn| - sum_n eps_kn norm(w_mn))^2 / (1 + I_k)
    I_k    = sum over other areas of max over their messages of
             (|sum_n g_kn^H w_n| + sum_n eps_kn norm(w_n))^2
    subject to norm(w_mn)^2 <= P_n

b_m are the bits of the message times its area's share of the users. Projected Adam (D. Kingma,
J. Ba, arXiv 1412.6980). A user whom an area's nodes hardly reach is no neighbour of it, and left
out of its messages' interference here; the judge leaves out nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.beamforming.by_name import one_thread
from finecast.solvers.deadline import NEVER, Deadline, count_work

STEPS = 150
"""Steps of Adam."""

FIRST_STEP = 0.05
"""First step, as a share of the largest amplitude of a node; it falls to none by a cosine."""

NEGLECTED = 0.02
"""Interference over noise that all areas which are no neighbours of a user cause together, at
most, if their nodes all send it their full power in phase."""

STEP_WORK = 2e-3
"""Work of a step, however small."""

PRODUCT_WORK = 8e-9
"""Work of a step for every product of a channel and a beam."""

TINY = 1e-12


@dataclass(frozen=True, eq=False)
class LocalMessages:
    """The local messages of one slot.

    Attributes
    ----------
    area
        (X,) area of each.
    sends
        (X, N) bool.
    users
        (X, K) bool.
    weight
        (X,) bits, times the area's share of the users.
    """

    area: IntArray
    sends: BoolArray
    users: BoolArray
    weight: FloatArray


@dataclass(frozen=True, eq=False)
class Joint:
    """The beams of a slot as a problem of their own: what areas exchange, and nothing else.

    Everything is by area and padded: A areas of up to X messages, N nodes, V neighbours each. Of
    a user whom an area does not reach there is no channel from it.

    Attributes
    ----------
    message, node
        (A, X) and (A, N) index of the message or node, -1 for none.
    limit
        (A, X, N) sqrt(P_n) of nodes that send, 0 else.
    victim
        (A, V) index of the user, `users` for none.
    channel, error
        (A, V, N M) conjugate channels of the neighbours, and (A, V, N).
    row, listener, own
        (Y,) area and place of a message, its listener, and who that is among `own_channel`, for
        every pair of a message and a listener.
    own_channel, own_error
        (D, N M) and (D, N) of every listener from its own area.
    weight
        (A X,) of the messages.
    start
        (A, X, N M) beams to start from.
    scale
        Largest amplitude of a node.
    users
        K.
    cap
        Highest efficiency of a message, bit/s/Hz.
    """

    message: IntArray
    node: IntArray
    limit: NDArray[np.float32]
    victim: IntArray
    channel: NDArray[np.complex64]
    error: NDArray[np.float32]
    row: IntArray
    listener: IntArray
    own: IntArray
    own_channel: NDArray[np.complex64]
    own_error: NDArray[np.float32]
    weight: NDArray[np.float32]
    start: NDArray[np.complex64]
    scale: float
    users: int
    cap: float


@dataclass(frozen=True, eq=False)
class _Problem:
    """What a step needs of `Joint`, with the channels of every pair of message and listener."""

    limit: Tensor
    victim: Tensor
    channel: Tensor
    error: Tensor
    row: Tensor
    listener: Tensor
    own_channel: Tensor  # (Y, N M)
    own_error: Tensor  # (Y, N)
    weight: Tensor
    users: int


def _in_torch(joint: Joint) -> _Problem:
    own = torch.tensor(joint.own)
    return _Problem(
        torch.tensor(joint.limit),
        torch.tensor(joint.victim),
        torch.tensor(joint.channel),
        torch.tensor(joint.error),
        torch.tensor(joint.row),
        torch.tensor(joint.listener),
        torch.tensor(joint.own_channel)[own],
        torch.tensor(joint.own_error)[own],
        torch.tensor(joint.weight),
        joint.users,
    )


def neighbours(strength: FloatArray, power: FloatArray, node_area: IntArray) -> BoolArray:
    """Return (A, K) whether an area's nodes reach a user.

    Parameters
    ----------
    strength
        (K, N) norm of the channels over the noise amplitude.
    power, node_area
        (N,) W, and area of every node.
    """
    amplitude = strength * np.sqrt(power)
    areas = int(node_area.max()) + 1
    worst = np.stack([amplitude[:, node_area == a].sum(axis=1) ** 2 for a in range(areas)])
    order = np.argsort(worst, axis=0)
    summed = np.cumsum(np.take_along_axis(worst, order, axis=0), axis=0)
    near = np.empty(worst.shape, dtype=bool)
    np.put_along_axis(near, order, summed > NEGLECTED, axis=0)
    return near


def joint_beams(
    joint: Joint, steps: int = STEPS, deadline: Deadline = NEVER
) -> NDArray[np.complex64]:
    """Return (A, X, N M) beams that are better together than the first, within the powers.

    Parameters
    ----------
    joint
        The problem.
    steps, deadline
        Steps of Adam, and when to stop. The best beams on the way are returned.
    """
    if not joint.message.size:
        return joint.start
    antennas = joint.start.shape[2] // joint.node.shape[1]
    with one_thread():
        problem = _in_torch(joint)
        beam = torch.view_as_real(torch.tensor(joint.start))
        products = (
            problem.channel.shape[0] * problem.channel.shape[1] * beam.shape[1] * beam.shape[2]
        )
        products += problem.own_channel.numel()
        moment, square = torch.zeros_like(beam), torch.zeros_like(beam)
        best, best_value = beam, np.inf
        for step in range(steps + 1):
            beam = beam.detach().requires_grad_(True)
            value = _objective(problem, torch.view_as_complex(beam), joint.cap, antennas)
            if value.item() < best_value:
                best, best_value = beam.detach(), value.item()
            if step == steps or deadline.over():
                break
            count_work(STEP_WORK + PRODUCT_WORK * products)
            (slope,) = torch.autograd.grad(value, beam)
            moment = 0.9 * moment + 0.1 * slope
            square = 0.99 * square + 0.01 * slope**2
            bias = (1 - 0.9 ** (step + 1)) / np.sqrt(1 - 0.99 ** (step + 1))
            length = FIRST_STEP * joint.scale * (0.5 + 0.5 * np.cos(np.pi * step / steps))
            with torch.no_grad():
                beam = beam - length / bias * moment / (square.sqrt() + 1e-30)
                beam = _projected(problem, beam, antennas)
        return np.asarray(torch.view_as_complex(best.contiguous()).numpy())


def _objective(problem: _Problem, beam: Tensor, cap: float, antennas: int) -> Tensor:
    """Return the weighted time on the air, per Hz."""
    areas, count, width = beam.shape
    norm = (beam.real**2 + beam.imag**2).reshape(areas, count, -1, antennas).sum(3)
    norm = (norm + TINY).sqrt()
    leak = (problem.channel @ beam.transpose(1, 2)).abs()
    leak = (leak + problem.error @ norm.transpose(1, 2)) ** 2
    worst = leak.amax(2)
    interference = torch.zeros(problem.users + 1, dtype=worst.dtype)
    interference = interference.index_add(0, problem.victim.reshape(-1), worst.reshape(-1))
    own = beam.reshape(areas * count, width)[problem.row]
    received = (problem.own_channel * own).sum(1).abs()
    received = received - (problem.own_error * norm.reshape(areas * count, -1)[problem.row]).sum(1)
    sinr = received.clamp(min=1e-6) ** 2 / (1.0 + interference[problem.listener])
    least = torch.full((areas * count,), 1e9, dtype=sinr.dtype)
    least = least.scatter_reduce(0, problem.row, sinr, "amin")
    efficiency = torch.log1p(least) / np.log(2.0)
    total: Tensor = (problem.weight / efficiency.clamp(max=cap)).sum()
    return total


def _projected(problem: _Problem, beam: Tensor, antennas: int) -> Tensor:
    """Return the beams with every node within its power, and silent where it does not send."""
    areas, count, width, _ = beam.shape
    by_node = beam.reshape(areas, count, width // antennas, 2 * antennas)
    norm = by_node.norm(dim=3)
    factor = torch.clamp(problem.limit / (norm + TINY), max=1.0)
    return (by_node * factor[..., None]).reshape(beam.shape)


def joint_problem(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    node_area: IntArray,
    user_area: IntArray,
    messages: LocalMessages,
    start: ComplexArray,
    cap: float,
) -> Joint:
    """Return the problem of `joint_beams`.

    Parameters
    ----------
    channel, error
        (K, N, M) and (K, N) of the slot, normalised by the noise amplitude.
    power, node_area
        (N,) W, and area of every node.
    user_area
        (K,) area of every user, -1 for none.
    messages
        Who sends what to whom, X >= 1.
    start
        (X, N, M) beams to start from.
    cap
        Highest efficiency of a message, bit/s/Hz.
    """
    users = len(channel)
    sending = np.unique(messages.area)
    message = _rows([np.flatnonzero(messages.area == a) for a in sending])
    node = _rows([np.flatnonzero(node_area == a) for a in sending])
    listening = messages.users.any(axis=0)
    strength = np.linalg.norm(channel, axis=2)
    near = neighbours(strength, power, node_area)[sending] & listening
    near &= user_area != sending[:, None]
    victim = _rows([np.flatnonzero(row) for row in near])
    there = (victim >= 0)[:, :, None] & (node >= 0)[:, None, :]  # (A, V, N)
    of_victim = channel[victim[:, :, None], node[:, None, :]].conj() * there[..., None]
    limit = np.sqrt(power)[node][:, None] * (node >= 0)[:, None]
    limit = limit * messages.sends[message[:, :, None], node[:, None, :]]
    limit = limit * (message >= 0)[:, :, None]
    # Every pair of a message and one of its users; users of several messages have one channel.
    area, place = np.nonzero(message >= 0)
    pair, listener = np.nonzero(messages.users[message[area, place]])
    distinct, own = np.unique(area[pair] * users + listener, return_inverse=True)
    mine = node[distinct // max(users, 1)]
    of_own = channel[(distinct % max(users, 1))[:, None], mine].conj() * (mine >= 0)[..., None]
    own_error = error[(distinct % max(users, 1))[:, None], mine] * (mine >= 0)
    return Joint(
        message,
        node,
        limit.astype(np.float32),
        np.where(victim >= 0, victim, users),
        of_victim.reshape(*victim.shape, -1).astype(np.complex64),
        (error[victim[:, :, None], node[:, None, :]] * there).astype(np.float32),
        area[pair] * message.shape[1] + place[pair],
        listener,
        own.reshape(-1),
        of_own.reshape(len(distinct), -1).astype(np.complex64),
        own_error.astype(np.float32),
        np.where(message >= 0, messages.weight[message], 0.0).reshape(-1).astype(np.float32),
        _by_area(message, node, start),
        float(np.sqrt(power.max())),
        users,
        cap,
    )


def _rows(rows: list[IntArray]) -> IntArray:
    """Return the rows padded with -1 to the longest."""
    padded = np.full((len(rows), max(1, *(len(row) for row in rows))), -1)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def _by_area(message: IntArray, node: IntArray, beam: ComplexArray) -> NDArray[np.complex64]:
    """Return (A, X, N M) the beams (X, N, M) by area."""
    there = (message >= 0)[:, :, None] & (node >= 0)[:, None, :]
    table = beam[message[:, :, None], node[:, None, :]] * there[..., None]
    return np.asarray(table.reshape(*message.shape, -1).astype(np.complex64))


def by_message(joint: Joint, beam: NDArray[np.complex64], shape: tuple[int, ...]) -> ComplexArray:
    """Return (X, N, M) from the beams by area.

    Parameters
    ----------
    joint, beam
        The problem, and the answer of `joint_beams`.
    shape
        (X, N, M).
    """
    result = np.zeros(shape, dtype=np.complex128)
    areas, count = joint.message.shape
    table = beam.reshape(areas, count, joint.node.shape[1], -1)
    a, x, n = np.nonzero((joint.message >= 0)[:, :, None] & (joint.node >= 0)[:, None, :])
    result[joint.message[a, x], joint.node[a, n]] = table[a, x, n]
    return result
