"""Small instances and solutions for the tests of the judge: one to reckon by hand, and random ones.

The hand-made instance has round numbers. Two nodes with one antenna each, two users, all channels
1, noise 1 W, bandwidth 1 MHz: a message of amplitude a (summed over its nodes) has SNR a^2, so

    SNR 3 -> 2 bit/s/Hz -> 2 Mbit/s        SNR 15 -> 4 bit/s/Hz -> 4 Mbit/s.

Three blocks of 125,000 byte = 1 Mbit: block 0 is in both models, block 1 in model 0, block 2 in
model 1. User 0 wants model 0, user 1 model 1. A node may radiate 4 W. Links: 2 Mbit/s between the
nodes, so a block takes 0.5 s; from the cloud 1 Mbit/s to node 0 (1 s), 0.5 Mbit/s to node 1 (2 s).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from slow_judge import from_other_areas, shannon

from finecast.problem.demand import Demand
from finecast.problem.evaluation import Evaluation, evaluate
from finecast.problem.instance import Instance
from finecast.problem.library import ModelLibrary
from finecast.problem.network import Network
from finecast.problem.solution import Broadcast, Solution, silence

MEGABIT_IN_BYTES = 125_000
CLOUD = 2  # the source value that means the cloud, with two nodes


@dataclass(frozen=True)
class Message:
    """One message: who gets what from whom, at which amplitude per node and planned rate."""

    users: tuple[int, ...]
    nodes: tuple[int, ...]
    blocks: tuple[int, ...]
    amplitude: float
    rate: float = 2e6


# With amplitude sqrt(3) at one node the SNR is 3; with sqrt(15) / 2 at each of two it is 15.
SHARED = Message((0, 1), (0, 1), (0,), np.sqrt(15) / 2, 4e6)  # 1 Mbit in 0.25 s
FIRST = Message((0,), (0,), (1,), np.sqrt(3))  # 1 Mbit in 0.5 s
SECOND = Message((1,), (1,), (2,), np.sqrt(3))  # 1 Mbit in 0.5 s


def hand_instance(
    *,
    slots: int = 1,
    storage: Sequence[int] = (2 * MEGABIT_IN_BYTES, 2 * MEGABIT_IN_BYTES),
    requests: Any = None,
    estimate: Any = None,
    error: Any = 0.0,
    true: Any = None,
    delivery: Any = "sequential",
    schedule: Any = "sequential",
    block_size: Sequence[int] = (MEGABIT_IN_BYTES,) * 3,
    **network: Any,
) -> Instance:
    """Return the hand-made instance; channels and errors are given as (users, nodes)."""
    shape = (slots, 2, 2, 1)
    channel = np.broadcast_to(
        np.ones((2, 2, 1)) if estimate is None else np.array(estimate)[..., None], shape
    )
    radio = {
        "power": (4.0, 4.0),
        "backhaul_rate": [[0, 2e6], [2e6, 0]],
        "cloud_rate": (1e6, 0.5e6),
        "bandwidth": 1e6,
        "noise_power": 1.0,
    }
    return Instance(
        library=ModelLibrary(
            block_size=np.array(block_size), model_blocks=np.array([[1, 1, 0], [1, 0, 1]], bool)
        ),
        network=Network(storage=np.array(storage), **(radio | network)),
        demand=Demand(np.full((slots, 2, 2), 0.5), 0.0, np.ones(2)),
        requests=np.array([[0, 1]] * slots if requests is None else requests),
        channel_estimate=channel,
        channel_error=np.broadcast_to(np.asarray(error, dtype=float), shape[:3]),
        channel_true=(
            channel if true is None else np.broadcast_to(np.array(true)[..., None], shape)
        ),
        delivery=delivery,
        schedule=schedule,
    )


def hand_broadcast(
    *messages: Message,
    modes: Sequence[tuple[float, Sequence[int]]] | None = None,
    block_size: Sequence[int] = (MEGABIT_IN_BYTES,) * 3,
) -> Broadcast:
    """Return the messages of one slot.

    `modes` lists (seconds, messages on the air); by default one mode per message, in order, just
    long enough for its bits.
    """
    if modes is None:
        modes = [
            (8 * sum(block_size[j] for j in m.blocks) / m.rate, [i]) for i, m in enumerate(messages)
        ]
    on_air = [(mode, i) for mode, (_, together) in enumerate(modes) for i in together]
    users, nodes = np.zeros((2, len(messages), 2), dtype=bool)
    blocks = np.zeros((len(messages), 3), dtype=bool)
    beam = np.zeros((len(on_air), 2, 1), dtype=complex)
    for i, message in enumerate(messages):
        users[i, list(message.users)] = True
        nodes[i, list(message.nodes)] = True
        blocks[i, list(message.blocks)] = True
    for x, (_, i) in enumerate(on_air):
        beam[x, list(messages[i].nodes), 0] = messages[i].amplitude
    return Broadcast(
        users=users,
        nodes=nodes,
        blocks=blocks,
        duration=np.array([seconds for seconds, _ in modes]),
        mode=np.array([mode for mode, _ in on_air], dtype=np.int64),
        message=np.array([i for _, i in on_air], dtype=np.int64),
        beam=beam,
        rate=np.array([messages[i].rate for _, i in on_air]),
    )


def hand_solution(
    *broadcasts: Broadcast,
    cache: Sequence[Sequence[Sequence[int]]] = (((0, 1), (0, 2)),),
    migrations: Sequence[tuple[int, int, int, int]] = (),
    planned: Any = "guaranteed",
) -> Solution:
    """Return a solution.

    `cache[t][n]` lists the blocks of node n (the last slot's repeats); a migration is
    (slot, receiver, block, source).
    """
    slots = len(broadcasts)
    held = np.zeros((slots, 2, 3), dtype=bool)
    source = np.full((slots, 2, 3), -1)
    for t in range(slots):
        for n, blocks in enumerate(cache[min(t, len(cache) - 1)]):
            held[t, n, list(blocks)] = True
    for t, n, j, origin in migrations:
        source[t, n, j] = origin
    return Solution(cache=held, source=source, broadcasts=broadcasts, planned=planned)


def rules(evaluation: Evaluation) -> list[str]:
    """Return the names of the broken rules, sorted, each as often as it is broken."""
    return sorted(violation.rule for violation in evaluation.violations)


def hand_evaluation(*messages: Message, **choices: Any) -> Evaluation:
    """Judge `messages` (default: the three of the hand-made plan) on the hand-made instance."""
    solution_part = {k: choices.pop(k) for k in ("cache", "migrations", "planned") if k in choices}
    modes = choices.pop("modes", None)
    size = choices.get("block_size", (MEGABIT_IN_BYTES,) * 3)
    broadcast = hand_broadcast(*(messages or (SHARED, FIRST, SECOND)), modes=modes, block_size=size)
    return evaluate(hand_instance(**choices), hand_solution(broadcast, **solution_part))


def random_instance(
    rng: np.random.Generator,
    *,
    slots: int,
    users: int,
    nodes: int,
    antennas: int,
    blocks: int,
    models: int,
    delivery: Any = "sequential",
    schedule: Any = "sequential",
    relative_error: float = 0.1,
    max_spectral_efficiency: float = np.inf,
    areas: int = 1,
) -> Instance:
    """Return a small random instance in which everything varies: idle users, dead links.

    It has at most `areas` areas.
    """
    model_blocks = rng.random((models, blocks)) < 0.5
    model_blocks[np.arange(models), rng.integers(blocks, size=models)] = True
    orphan = ~model_blocks.any(axis=0)
    model_blocks[rng.integers(models), orphan] = True
    block_size = rng.integers(1, 1_000_000, size=blocks)
    shape = (slots, users, nodes, antennas)
    estimate = rng.normal(size=(*shape, 2)) @ np.array([1, 1j]) * 1e-5
    error = relative_error * np.linalg.norm(estimate, axis=3) * rng.random(shape[:3])
    direction = rng.normal(size=(*shape, 2)) @ np.array([1, 1j])
    direction /= np.linalg.norm(direction, axis=3, keepdims=True)
    backhaul = rng.uniform(1e5, 1e7, size=(nodes, nodes)) * (rng.random((nodes, nodes)) < 0.8)
    preference = rng.random((slots, users, models)) + 0.01
    _, area = np.unique(
        rng.integers(areas, size=nodes) if areas > 1 else np.zeros(nodes), return_inverse=True
    )
    return Instance(
        library=ModelLibrary(block_size=block_size, model_blocks=model_blocks),
        network=Network(
            storage=rng.integers(0, block_size.sum() + 1, size=nodes),
            power=rng.uniform(0.5, 2.0, size=nodes),
            backhaul_rate=backhaul,
            cloud_rate=rng.uniform(1e5, 1e6, size=nodes),
            bandwidth=1e6,
            noise_power=1e-11,
            max_spectral_efficiency=max_spectral_efficiency,
            node_position=rng.normal(size=(nodes, 2)),
        ),
        demand=Demand(preference / preference.sum(axis=2, keepdims=True), 0.3, np.full(users, 0.8)),
        requests=rng.integers(-1, models, size=(slots, users)),
        channel_estimate=estimate,
        channel_error=error,
        channel_true=estimate + direction * (error * rng.random(shape[:3]))[..., None],
        delivery=delivery,
        schedule=schedule,
        user_position=rng.normal(size=(users, 2)),
        name="random",
        seed=7,
        areas=area.ravel(),
    )


def random_solution(
    rng: np.random.Generator, instance: Instance, *, planned: Any = "guaranteed"
) -> Solution:
    """Return a random feasible solution: any cache, sources, messages, nodes, beams and modes.

    Rates are up to what the slow judge allows, so that feasibility does not rest on the fast one;
    those of a nominal plan are up to what the estimated channels allow. With several areas, each
    block goes wide or within areas at random.
    """
    T, N, J = instance.slots, instance.nodes, instance.blocks
    size, network = instance.library.block_size, instance.network
    cache = np.zeros((T, N, J), dtype=bool)
    source = np.full((T, N, J), -1)
    broadcasts = []
    for t in range(T):
        may_hold = cache[t - 1] | (source[t - 1] >= 0) if t else np.ones((N, J), dtype=bool)
        for n in range(N):
            free = network.storage[n]
            for j in rng.permutation(J):
                if may_hold[n, j] and size[j] <= free and rng.random() < 0.7:
                    cache[t, n, j] = True
                    free -= size[j]

        def receive(n: int, j: int, t: int = t) -> None:
            origins = [
                o for o in range(N) if o != n and cache[t, o, j] and network.backhaul_rate[o, n] > 0
            ]
            source[t, n, j] = rng.choice([*origins, N])

        needs = instance.area_needs[t][instance.areas]  # (N, J), by the users of a node's area
        for n, j in np.argwhere(needs & (rng.random((N, J)) < 0.15)):
            receive(n, j)
        users, nodes, blocks, areas = [], [], [], []
        for group, carried, area in _random_messages_of_areas(rng, instance, t):
            may_send = needs[:, carried].all(axis=1) if area < 0 else instance.areas == area
            cooperating = (rng.random(N) < 0.6) & may_send
            cooperating[rng.choice(np.flatnonzero(may_send))] = True
            for n, j in np.argwhere(cooperating[:, None] & carried):
                if not cache[t, n, j] and source[t, n, j] < 0:
                    receive(n, j)
            users.append(group)
            nodes.append(cooperating)
            blocks.append(carried)
            areas.append(area)
        broadcasts.append(
            _random_air(
                rng,
                instance,
                t,
                np.array(users),
                np.array(nodes),
                np.array(blocks),
                np.array(areas),
                planned,
            )
            if users
            else silence(instance.users, N, J, instance.antennas)
        )
    return Solution(cache, source, tuple(broadcasts), planned=planned, method="random")


def _random_messages_of_areas(
    rng: np.random.Generator, instance: Instance, t: int
) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Return (users, blocks, area) of messages; area -1 for wide ones, all with one area."""
    wanted = instance.wanted[t]
    if instance.area_count == 1:
        return [(*message, -1) for message in _random_messages(rng, wanted)]
    wide = rng.random(instance.blocks) < 0.4
    messages = [(*message, -1) for message in _random_messages(rng, wanted & wide)]
    for area in range(instance.area_count):
        own = wanted & ~wide & (instance.user_area[t] == area)[:, None]
        messages += [(*message, area) for message in _random_messages(rng, own)]
    return [messages[i] for i in rng.permutation(len(messages))]


def _random_messages(
    rng: np.random.Generator, wanted: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (users, blocks) of messages: blocks of one group bundled at random, groups split."""
    messages = []
    for group in np.unique(wanted.T, axis=0):
        if not group.any():
            continue
        alike = np.flatnonzero((wanted.T == group).all(axis=1))
        bundle = rng.integers(1 + rng.integers(3), size=len(alike))
        for b in np.unique(bundle):
            carried = np.zeros(wanted.shape[1], dtype=bool)
            carried[alike[bundle == b]] = True
            half = group & (rng.random(len(group)) < 0.5)
            split = half.any() and (group & ~half).any() and rng.random() < 0.4
            for part in [half, group & ~half] if split else [group]:
                messages.append((part, carried))
    return [messages[i] for i in rng.permutation(len(messages))]


def _random_air(
    rng: np.random.Generator,
    instance: Instance,
    t: int,
    users: np.ndarray,
    nodes: np.ndarray,
    blocks: np.ndarray,
    areas: np.ndarray,
    planned: str,
) -> Broadcast:
    """Return random modes, beams within the power limits, rates that hold, durations that do."""
    messages = len(users)
    if instance.delivery == "sequential":
        pairs = [(m, i) for m, i in enumerate(rng.permutation(messages).tolist())]
    else:
        modes = int(rng.integers(1, 4))
        pairs = [(m, i) for m in range(modes) for i in range(messages) if rng.random() < 0.5]
        pairs += [(0, i) for i in range(messages) if all(i != i2 for _, i2 in pairs)]
        used = sorted({(m, areas[i]) for m, i in pairs})  # a mode has messages of one area
        pairs = [(used.index((m, areas[i])), i) for m, i in pairs]
    mode, message = np.array(pairs).T
    shape = (len(pairs), instance.nodes, instance.antennas)
    # Mostly towards one of the users, so that guaranteed rates are rarely 0.
    towards = [rng.choice(np.flatnonzero(users[i])) for i in message]
    beam = instance.channel_estimate[t, towards] * 1e5
    beam = beam + 0.3 * rng.normal(size=(*shape, 2)) @ np.array([1, 1j])
    beam *= nodes[message][:, :, None]
    used_power = np.zeros((mode.max() + 1, instance.nodes))
    np.add.at(used_power, mode, np.sum(np.abs(beam) ** 2, axis=2))
    with np.errstate(divide="ignore"):
        scale = np.sqrt(rng.uniform(0.3, 1.0) * instance.network.power / used_power)
    beam *= np.where(np.isfinite(scale), scale, 0.0)[mode][:, :, None]
    error = instance.channel_error[t] * (planned == "guaranteed")
    rate = np.array(
        [
            min(
                shannon(
                    instance,
                    instance.channel_estimate[t, k].tolist(),
                    error[k].tolist(),
                    beam[x].tolist(),
                    [beam[y].tolist() for y in np.flatnonzero(mode == mode[x]) if y != x],
                    from_other_areas(
                        int(areas[message[x]]),
                        areas[message].tolist(),
                        mode.tolist(),
                        beam.tolist(),
                        instance.channel_estimate[t, k].tolist(),
                        error[k].tolist(),
                    ),
                )
                for k in np.flatnonzero(users[message[x]])
            )
            for x in range(len(pairs))
        ]
    )
    rate *= rng.choice([1.0, 0.7], size=len(rate))
    duration = rng.uniform(0.1, 1.0, size=mode.max() + 1)
    bits = 8.0 * (blocks @ instance.library.block_size)
    sent = np.bincount(message, weights=duration[mode] * rate, minlength=messages)
    if instance.delivery == "sequential":
        duration *= (bits / np.maximum(sent, 1e-3))[message]
    else:
        duration *= (bits / np.maximum(sent, 1e-3)).max()
    return Broadcast(users, nodes, blocks, duration, mode, message, beam, rate, areas)


def random_mutation(
    rng: np.random.Generator, instance: Instance, solution: Solution
) -> Solution | None:
    """Return the solution with one decision changed, or None where the data types forbid it."""
    T, N, J = solution.cache.shape
    t, n, j = (int(rng.integers(size)) for size in (T, N, J))
    field = str(
        rng.choice(
            ["cache", "source", "planned", "users", "nodes", "blocks", "duration", "rate", "beam"]
        )
    )
    if instance.area_count > 1 and rng.random() < 0.2:
        return _another_area(rng, instance, solution, t)
    if field == "planned":
        return replace(solution, planned="nominal")
    if field == "cache":
        cache = solution.cache.copy()
        cache[t, n, j] ^= True
        return replace(solution, cache=cache)
    if field == "source":
        source = solution.source.copy()
        source[t, n, j] = rng.integers(-1, N + 1)
        return replace(solution, source=source)
    broadcast = solution.broadcasts[t]
    array = getattr(broadcast, field).copy()
    if not array.size:
        return None
    place = tuple(int(rng.integers(size)) for size in array.shape)
    if array.dtype == bool:
        array[place] ^= True
        if not array.any(axis=1).all():
            return None
    elif field == "beam":
        array[place] = array[place] * 1.5 + rng.choice([0.0, 0.3])
    else:
        array[place] *= rng.choice([0.5, 1.3])
    changed = list(solution.broadcasts)
    changed[t] = replace(broadcast, **{field: array})
    return replace(solution, broadcasts=tuple(changed))


def _another_area(
    rng: np.random.Generator, instance: Instance, solution: Solution, t: int
) -> Solution | None:
    """Return the solution with one message of a slot in another area, or wide."""
    broadcast = solution.broadcasts[t]
    if not broadcast.messages:
        return None
    area = broadcast.area.copy()
    area[rng.integers(broadcast.messages)] = rng.integers(-1, instance.area_count)
    changed = list(solution.broadcasts)
    try:
        changed[t] = replace(broadcast, area=area)
    except ValueError:  # it shares a mode with others
        return None
    return replace(solution, broadcasts=tuple(changed))
