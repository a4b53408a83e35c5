"""A second judge, slow and plain: docs/formulation.md sections 2 and 3 read aloud, in loops.

So is docs/areas.md, as far as it says what a solution of several areas is worth.

It shares no formula with `finecast.problem.evaluation`: no array operation, only Python numbers,
`math` and sets. What it returns is compared with the fast judge on random solutions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from finecast.problem.instance import Instance
from finecast.problem.solution import Solution

TOLERANCE = 1e-9
Place = tuple[str, int, int | None, int | None, int | None, int | None, int | None]


@dataclass
class SlowVerdict:
    """As `finecast.problem.evaluation.Evaluation`, in lists; a violation is a `Place`."""

    violations: set[Place]
    guaranteed: bool
    delay: float
    realised_delay: float
    planned_delay: float
    sequential_delay: float
    pipelined_delay: float
    slot_delay: list[float]
    slot_migration: list[float]
    slot_broadcast: list[float]
    slot_realised_delay: list[float]
    block_migration: list[list[float]]
    block_air_time: list[list[float]]
    user_completion: list[list[float]]
    mean_completion: float
    p95_completion: float
    request_hit_ratio: float
    block_hit_ratio: float
    byte_hit_ratio: float
    migrated_bytes: int
    cloud_bytes: int
    storage_saved_bytes: float
    broadcast_gain: float
    transmit_energy: float
    outages: int
    area_delay: list[list[float]]
    longest_area_delay: float
    p95_area_delay: float
    interference: list[list[float]]
    interference_over_noise_db: float
    wide_share: float


def place(
    rule: str,
    slot: int,
    node: int | None = None,
    block: int | None = None,
    user: int | None = None,
    message: int | None = None,
    mode: int | None = None,
) -> Place:
    """Return which rule is broken and where, comparable."""
    return (rule, slot, node, block, user, message, mode)


def slow_evaluate(instance: Instance, solution: Solution) -> SlowVerdict:
    """Judge a solution by loops."""
    T, N, J = instance.slots, instance.nodes, instance.blocks
    K, M = instance.users, instance.models
    size = instance.library.block_size.tolist()
    contains = instance.library.model_blocks.tolist()
    requests = instance.requests.tolist()
    storage = instance.network.storage.tolist()
    backhaul = instance.network.backhaul_rate.tolist()
    cloud = instance.network.cloud_rate.tolist()
    cache = solution.cache.tolist()
    source = solution.source.tolist()

    broken: set[Place] = set()
    U = [
        [{k for k in range(K) if requests[t][k] >= 0 and contains[requests[t][k]][j]}
         for j in range(J)]
        for t in range(T)
    ]  # fmt: skip
    needed = [[j for j in range(J) if U[t][j]] for t in range(T)]
    areas = instance.areas.tolist()
    A = max(areas) + 1
    home = [[_home(instance, t, k) for k in range(K)] for t in range(T)]

    # Section 2, rules 1, 2 and 4: caches and migrations.
    for t in range(T):
        for n in range(N):
            if sum(size[j] for j in range(J) if cache[t][n][j]) > storage[n]:
                broken.add(place("storage", t, node=n))
            for j in range(J):
                origin = source[t][n][j]
                if t and cache[t][n][j] and not cache[t - 1][n][j] and source[t - 1][n][j] < 0:
                    broken.add(place("keep", t, node=n, block=j))
                if origin < 0:
                    continue
                if not U[t][j]:
                    broken.add(place("migration-needless", t, node=n, block=j))
                if U[t][j] and all(home[t][k] != areas[n] for k in U[t][j]) and A > 1:
                    broken.add(place("area-needless", t, node=n, block=j))
                if origin < N and (origin == n or not cache[t][origin][j]):
                    broken.add(place("migration-source", t, node=n, block=j))
                if origin < N and origin != n and backhaul[origin][n] == 0:
                    broken.add(place("migration-link", t, node=n, block=j))

    # Section 3: tau_j, the slowest of the nodes that receive block j; for a local block, by area.
    ways = [_ways(solution, t, A) for t in range(T)]
    tau_of = [{a: [0.0] * J for a in (-1, *range(A))} for _ in range(T)]
    for t in range(T):
        for j in needed[t]:
            for n in range(N):
                origin = source[t][n][j]
                if origin >= 0:
                    rate = cloud[n] if origin == N else (0 if origin == n else backhaul[origin][n])
                    seconds = 8 * size[j] / rate if rate > 0 else math.inf
                    phase = areas[n] if ways[t][j] == {"local"} else -1
                    tau_of[t][phase][j] = max(tau_of[t][phase][j], seconds)

    guaranteed = True
    sequential, pipelined = [], []
    realised, on_air = [], []
    completion: list[list[float]] = []
    area_delay: list[list[float]] = []
    interference = [[math.nan] * K for _ in range(T)]
    tau = [[0.0] * J for _ in range(T)]
    weights = []
    outages = 0
    for t in range(T):
        slot = _SlowSlot(instance, solution, t, U[t], tau_of[t], home[t])
        broken |= slot.broken
        guaranteed = guaranteed and slot.guaranteed
        outages += slot.outages
        asking = [home[t][k] for k in range(K) if requests[t][k] >= 0]
        weight = {a: asking.count(a) / len(asking) if asking else 0.0 for a in range(A)}
        weight[-1] = 1.0
        weights.append(weight)
        lengths: dict[str, dict[int, float]] = {"s": {}, "p": {}, "rs": {}, "rp": {}}
        ends: dict[int, list[float]] = {}
        air = {}
        for a in (-1, *range(A)):
            own = [m for m, of in enumerate(slot.mode_area) if of == a]
            lasting = [slot.duration[m] + slot.repeat[m] for m in range(len(slot.duration))]
            air[a] = sum(slot.duration[m] for m in own)
            lengths["s"][a] = sum(tau_of[t][a]) + air[a]
            lengths["rs"][a] = sum(tau_of[t][a]) + sum(lasting[m] for m in own)
            lengths["p"][a], pipelined_ends = slot.pipelined(a, slot.duration)
            lengths["rp"][a] = slot.pipelined(a, lasting)[0]
            is_sequential = instance.schedule == "sequential"
            ends[a] = slot.sequential(a) if is_sequential else pipelined_ends
        mean = {
            name: sum(weight[a] * length[a] for a in weight if weight[a] > 0)
            for name, length in lengths.items()
        }
        sequential.append(mean["s"])
        pipelined.append(mean["p"])
        realised.append(mean["rs" if instance.schedule == "sequential" else "rp"])
        on_air.append(sum(weight[a] * air[a] for a in weight))
        for j in range(J):
            tau[t][j] = sum(weight[a] * tau_of[t][a][j] for a in weight if weight[a] > 0)
        of_own = lengths["s" if instance.schedule == "sequential" else "p"]
        area_delay.append([of_own[-1] + of_own[a] if weight[a] > 0 else math.nan for a in range(A)])
        completion.append([slot.complete(k, ends, of_own[-1]) for k in range(K)])
        for i, a in enumerate(slot.area):
            for k in [k for k in slot.users[i] if a >= 0 and home[t][k] == a]:
                interference[t][k] = slot.outside(k, a, True, instance.channel_estimate) / (
                    instance.network.noise_power
                )

    own = sequential if instance.schedule == "sequential" else pipelined
    finished = sorted(c for row in completion for c in row if not math.isnan(c))

    # Figures beside the delay.
    cached_somewhere = [{j for j in range(J) if any(cache[t][n][j] for n in range(N))}
                        for t in range(T)]  # fmt: skip
    asked = [(t, requests[t][k]) for t in range(T) for k in range(K) if requests[t][k] >= 0]
    hits = [all(j in cached_somewhere[t] for j in range(J) if contains[m][j]) for t, m in asked]
    all_needed = [(t, j) for t in range(T) for j in needed[t]]
    hit_blocks = [(t, j) for t, j in all_needed if j in cached_somewhere[t]]
    saved = 0
    for t in range(T):
        for n in range(N):
            whole = [m for m in range(M) if all(cache[t][n][j] for j in range(J) if contains[m][j])]
            apart = sum(size[j] for m in whole for j in range(J) if contains[m][j])
            saved += apart - sum(size[j] for j in range(J) if any(contains[m][j] for m in whole))
    bits_sent = bits_received = bits_wide = energy = 0.0
    air_time = [[0.0] * J for _ in range(T)]
    for t, broadcast in enumerate(solution.broadcasts):
        message_time = [0.0] * broadcast.messages
        for x in range(len(broadcast.rate)):
            i, d = int(broadcast.message[x]), float(broadcast.duration[broadcast.mode[x]])
            message_time[i] += d
            energy += d * sum(abs(w) ** 2 for row in broadcast.beam[x].tolist() for w in row)
        for i in range(broadcast.messages):
            carried = [j for j in range(J) if broadcast.blocks[i, j]]
            total = sum(size[j] for j in carried)
            bits_sent += 8 * total
            bits_received += 8 * total * int(sum(broadcast.users[i].tolist()))
            area = int(broadcast.area[i]) if A > 1 else -1
            bits_wide += 8 * total * (area == -1)
            for j in carried:
                air_time[t][j] += weights[t][area] * message_time[i] * size[j] / total

    return SlowVerdict(
        violations=broken,
        guaranteed=guaranteed,
        delay=math.inf if broken or not guaranteed else sum(own),
        realised_delay=math.inf if broken else sum(realised),
        planned_delay=sum(own),
        sequential_delay=sum(sequential),
        pipelined_delay=sum(pipelined),
        slot_delay=own,
        slot_migration=[sum(row) for row in tau],
        slot_broadcast=on_air,
        slot_realised_delay=realised,
        block_migration=tau,
        block_air_time=air_time,
        user_completion=completion,
        mean_completion=sum(finished) / len(finished) if finished else math.nan,
        p95_completion=_percentile(finished, 0.95),
        request_hit_ratio=_ratio(sum(hits), len(hits)),
        block_hit_ratio=_ratio(len(hit_blocks), len(all_needed)),
        byte_hit_ratio=_ratio(
            sum(size[j] for _, j in hit_blocks), sum(size[j] for _, j in all_needed)
        ),
        migrated_bytes=sum(
            size[j]
            for t in range(T)
            for n in range(N)
            for j in range(J)
            if 0 <= source[t][n][j] < N
        ),
        cloud_bytes=sum(
            size[j] for t in range(T) for n in range(N) for j in range(J) if source[t][n][j] == N
        ),
        storage_saved_bytes=saved / T,
        broadcast_gain=_ratio(bits_received, bits_sent),
        transmit_energy=energy,
        outages=outages,
        area_delay=area_delay,
        longest_area_delay=sum(
            max([d for d in row if not math.isnan(d)], default=0.0) for row in area_delay
        ),
        p95_area_delay=_percentile(
            sorted(
                area_delay[t][home[t][k]] for t in range(T) for k in range(K) if requests[t][k] >= 0
            ),
            0.95,
        ),
        interference=interference,
        interference_over_noise_db=_mean_db(
            [i for row in interference for i in row if not math.isnan(i)]
        ),
        wide_share=_ratio(bits_wide, bits_sent),
    )


def _home(instance: Instance, t: int, k: int) -> int:
    """Return the area of the first of user k's strongest nodes; -1 without a request."""
    if instance.requests[t, k] < 0:
        return -1
    strength = [
        sum(abs(h) ** 2 for h in instance.channel_estimate[t, k, n].tolist())
        for n in range(instance.nodes)
    ]
    return int(instance.areas[strength.index(max(strength))])


def _ways(solution: Solution, t: int, areas: int) -> list[set[str]]:
    """Return how each block is sent: "wide", "local", both or not at all."""
    broadcast = solution.broadcasts[t]
    ways: list[set[str]] = [set() for _ in range(broadcast.blocks.shape[1])]
    for i, area in enumerate(broadcast.area.tolist()):
        for j in range(len(ways)):
            if broadcast.blocks[i, j]:
                ways[j].add("local" if area >= 0 and areas > 1 else "wide")
    return ways


def _mean_db(ratios: list[float]) -> float:
    if not ratios:
        return math.nan
    mean = sum(ratios) / len(ratios)
    return 10 * math.log10(mean) if mean else -math.inf


class _SlowSlot:
    """The messages and modes of one slot: rules, repeats, schedule."""

    def __init__(
        self,
        instance: Instance,
        solution: Solution,
        t: int,
        U: list[set[int]],
        tau: dict[int, list[float]],
        home: list[int],
    ) -> None:
        network = instance.network
        broadcast = solution.broadcasts[t]
        size = instance.library.block_size.tolist()
        N, J = instance.nodes, instance.blocks
        self.broken: set[Place] = set()
        self.guaranteed = True
        self.outages = 0
        self.U, self.tau = U, tau
        self.duration = broadcast.duration.tolist()
        self.repeat = [0.0] * len(self.duration)
        self.blocks = [{j for j in range(J) if row[j]} for row in broadcast.blocks.tolist()]
        self.users = [
            {k for k in range(instance.users) if row[k]} for row in broadcast.users.tolist()
        ]
        nodes = [{n for n in range(N) if row[n]} for row in broadcast.nodes.tolist()]
        mode, message = broadcast.mode.tolist(), broadcast.message.tolist()
        rate, beam = broadcast.rate.tolist(), broadcast.beam.tolist()
        self.mode, self.message = mode, message
        self.instance, self.t, self.beam = instance, t, beam
        A = instance.area_count
        areas = instance.areas.tolist()
        self.area = broadcast.area.tolist() if A > 1 else [-1] * len(nodes)
        self.mode_area = [self.area[message[mode.index(m)]] for m in range(len(self.duration))]
        messages, modes, on_air = len(nodes), len(self.duration), len(rate)

        # Section 2, rule 3.
        for i in range(messages):
            for j in self.blocks[i]:
                for k in self.users[i] - U[j]:
                    self.broken.add(place("group", t, block=j, user=k, message=i))
                for n in nodes[i]:
                    if U[j] and all(home[k] != areas[n] for k in U[j]) and A > 1:
                        self.broken.add(place("area-needless", t, node=n, block=j, message=i))
                    if not solution.cache[t, n, j] and solution.source[t, n, j] < 0:
                        self.broken.add(place("cooperation", t, node=n, block=j, message=i))
            for k in self.users[i]:
                if self.area[i] >= 0 and home[k] != self.area[i]:
                    self.broken.add(place("area", t, user=k, message=i))
            for n in nodes[i]:
                if self.area[i] >= 0 and areas[n] != self.area[i]:
                    self.broken.add(place("area", t, node=n, message=i))
            bits = 8 * sum(size[j] for j in self.blocks[i])
            sent = sum(self.duration[mode[x]] * rate[x] for x in range(on_air) if message[x] == i)
            if sent < bits * (1 - TOLERANCE):
                self.broken.add(place("bits", t, message=i))
        for j, ways in enumerate(_ways(solution, t, A)):
            if len(ways) == 2:
                self.broken.add(place("mixed", t, block=j))
            reached: set[int] = set()
            for i in range(messages):
                if j in self.blocks[i]:
                    reached |= self.users[i]
            for k in U[j] - reached:
                self.broken.add(place("coverage", t, block=j, user=k))
        for m in range(modes):
            for n in range(N):
                watts = sum(
                    sum(abs(w) ** 2 for w in beam[x][n]) for x in range(on_air) if mode[x] == m
                )
                if watts > network.power[n] * (1 + TOLERANCE):
                    self.broken.add(place("power", t, node=n, mode=m))
        for x in range(on_air):
            for n in set(range(N)) - nodes[message[x]]:
                if any(w != 0 for w in beam[x][n]):
                    self.broken.add(place("beam", t, node=n, message=message[x], mode=mode[x]))
        if instance.delivery == "sequential":
            for m in range(modes):
                if mode.count(m) > 1:
                    self.broken.add(place("delivery", t, mode=m))
            for i in range(messages):
                if message.count(i) > 1:
                    self.broken.add(place("delivery", t, message=i))

        # Section 3: rates, and the repeats of the users that fail.
        lowest = network.bandwidth * math.log2(1 + 0.1)
        for x in range(on_air):
            i, m = message[x], mode[x]
            others = [beam[y] for y in range(on_air) if mode[y] == m and y != x]
            estimate = instance.channel_estimate[t].tolist()
            truth = instance.channel_true[t].tolist()
            radius = instance.channel_error[t].tolist()
            none = [0.0] * N
            a = self.area[i]
            promised, nominal = (
                min(
                    shannon(
                        instance, estimate[k], errors[k], beam[x], others,
                        self.outside(k, a, robust, instance.channel_estimate),
                    )
                    for k in self.users[i]
                )
                for errors, robust in ((radius, True), ([none] * len(radius), False))
            )  # fmt: skip
            true_outside = {
                k: self.outside(k, a, False, instance.channel_true) for k in self.users[i]
            }
            holds = rate[x] <= promised * (1 + TOLERANCE)
            self.guaranteed = self.guaranteed and holds
            if solution.planned == "guaranteed" and not holds:
                self.broken.add(place("rate", t, message=i, mode=m))
            if solution.planned == "nominal" and rate[x] > nominal * (1 + TOLERANCE):
                self.broken.add(place("rate", t, message=i, mode=m))
            failed = [
                k
                for k in self.users[i]
                if rate[x]
                > shannon(instance, truth[k], none, beam[x], others, true_outside[k])
                * (1 + TOLERANCE)
            ]
            if failed:
                alone = [
                    shannon(instance, truth[k], none, beam[x], [], true_outside[k]) for k in failed
                ]
                self.outages += sum(r < lowest for r in alone)
                self.repeat[m] += self.duration[m] * rate[x] / max(lowest, min(alone))

    def outside(self, k: int, area: int, robust: bool, channel: Any) -> float:
        """Return the most power (W) that the other areas ever bring to a user of one area."""
        instance, t = self.instance, self.t
        radius = instance.channel_error[t, k].tolist() if robust else [0.0] * instance.nodes
        modes = [self.mode_area[m] for m in self.mode]
        return from_other_areas(area, modes, self.mode, self.beam, channel[t, k].tolist(), radius)

    def sequential(self, area: int) -> list[float]:
        """Return the end of every mode of a phase when nothing overlaps or waits without need."""
        ends, elapsed = [math.nan] * len(self.duration), 0.0
        there: set[int] = set()
        for m, d in enumerate(self.duration):
            if self.mode_area[m] != area:
                continue
            for i, m2 in zip(self.message, self.mode, strict=True):
                if m2 == m:
                    elapsed += sum(self.tau[area][j] for j in self.blocks[i] - there)
                    there |= self.blocks[i]
            elapsed += d
            ends[m] = elapsed
        return ends

    def pipelined(self, area: int, lasting: list[float]) -> tuple[float, list[float]]:
        """Return the end of a phase and of its modes, where mode m lasts `lasting[m]`."""
        messages, modes = len(self.blocks), len(lasting)
        tau = self.tau[area]
        mode_order = [m for m in range(modes) if self.mode_area[m] == area]
        message_order = [i for i in range(messages) if self.area[i] == area]
        carried = [j for i in message_order for j in self.blocks[i]]
        is_flow_shop = (
            all(self.mode.count(m) == 1 for m in mode_order)
            and all(self.message.count(i) == 1 for i in message_order)
            and len(carried) == len(set(carried))
        )
        if is_flow_shop:
            message_of = dict(zip(self.mode, self.message, strict=True))
            fetch = {m: sum(tau[j] for j in self.blocks[message_of[m]]) for m in mode_order}
            first = [m for m in mode_order if fetch[m] < self.duration[m]]
            last = [m for m in mode_order if fetch[m] >= self.duration[m]]
            first.sort(key=lambda m: fetch[m])
            last.sort(key=lambda m: -self.duration[m])
            mode_order = first + last
            message_order = [message_of[m] for m in mode_order]
        link_free = 0.0
        there: set[int] = set()
        ready = [0.0] * messages
        for i in message_order:
            link_free += sum(tau[j] for j in self.blocks[i] - there)
            there |= self.blocks[i]
            ready[i] = link_free
        air_free = 0.0
        ends = [math.nan] * modes
        for m in mode_order:
            start = max(
                [air_free]
                + [ready[i] for i, m2 in zip(self.message, self.mode, strict=True) if m2 == m]
            )
            air_free = ends[m] = start + lasting[m]
        return air_free, ends

    def complete(self, k: int, ends: dict[int, list[float]], wide: float) -> float:
        """Return the end of the last message for user k; NaN for a user without a request."""
        wanted = [j for j in range(len(self.U)) if k in self.U[j]]
        if not wanted:
            return math.nan
        for j in wanted:
            if not any(j in b and k in u for b, u in zip(self.blocks, self.users, strict=True)):
                return math.inf
        return max(
            (
                ends[self.area[i]][m] + (wide if self.area[i] >= 0 else 0.0)
                for m, i in zip(self.mode, self.message, strict=True)
                if k in self.users[i]
            ),
            default=0.0,
        )


def from_other_areas(
    area: int,
    areas: list[int],
    modes: list[int],
    beams: list[list[list[complex]]],
    channel: list[list[complex]],
    radius: list[float],
) -> float:
    """Return the most power (W) that other areas ever bring to a user, whatever their timing.

    Parameters
    ----------
    area
        The user's, -1 for a user of a wide message.
    areas, modes, beams
        Of every transmission: its area, its mode, its (N, A) beamformer.
    channel, radius
        (N, A) and (N,), the user's channels and their error radii.
    """
    if area < 0:
        return 0.0
    total = 0.0
    for other in set(areas) - {-1, area}:
        power: dict[int, float] = {}
        for of, m, beam in zip(areas, modes, beams, strict=True):
            if of == other:
                field = sum(
                    h.conjugate() * v
                    for h_n, w_n in zip(channel, beam, strict=True)
                    for h, v in zip(h_n, w_n, strict=True)
                )
                slack = sum(
                    e * math.sqrt(sum(abs(v) ** 2 for v in w_n))
                    for e, w_n in zip(radius, beam, strict=True)
                )
                power[m] = power.get(m, 0.0) + (abs(field) + slack) ** 2
        total += max(power.values())
    return total


def shannon(
    instance: Instance,
    channel: list[list[complex]],
    radius: list[float],
    beam: list[list[complex]],
    others: list[list[list[complex]]],
    outside: float = 0.0,
) -> float:
    """Return the worst-case rate (bit/s) of one user, section 3, amplitudes not normalised.

    Parameters
    ----------
    channel, radius
        (N, A) and (N,), the user's channels and their error radii.
    beam, others
        (N, A), the wanted beamformer, and those of the other messages on the air.
    outside
        W, what comes from other areas at the same time.
    """
    network = instance.network

    def amplitude(w: list[list[complex]]) -> float:
        total = 0j
        for channel_n, w_n in zip(channel, w, strict=True):
            for h, v in zip(channel_n, w_n, strict=True):
                total += h.conjugate() * v
        return abs(total)

    def slack(w: list[list[complex]]) -> float:
        return sum(
            e * math.sqrt(sum(abs(v) ** 2 for v in w_n)) for e, w_n in zip(radius, w, strict=True)
        )

    signal = max(0.0, amplitude(beam) - slack(beam)) ** 2
    interference = sum((amplitude(w) + slack(w)) ** 2 for w in others)
    snr = signal / (network.noise_power + outside + interference)
    return network.bandwidth * min(network.max_spectral_efficiency, math.log1p(snr) / math.log(2))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _percentile(ordered: list[float], share: float) -> float:
    """Return the percentile with linear interpolation; infinite if anything is."""
    if not ordered:
        return math.nan
    if math.isinf(ordered[-1]):
        return math.inf
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
