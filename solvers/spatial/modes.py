"""Least broadcast time of a slot when several messages may share the air.

    min sum_m d_m   subject to   sum_m d_m R_mi >= b_i for every message i,   d >= 0,

over all modes m. A mode is beams of all messages within the power limits, R_mi are the guaranteed
rates (docs/formulation.md section 7). Column generation starts from the modes of one message each,
which are sequential delivery. HiGHS solves the programme over the modes known so far. A mode with
sum_i pi_i R_i > 1 at its prices pi_i (s/bit) would shorten it. Such modes are searched for and
added until none is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import highspy
import numpy as np
import torch

from finecast.problem.arrays import ComplexArray, FloatArray, IntArray
from finecast.solvers.beamforming.by_name import one_thread
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.highs import QuietHighs
from finecast.solvers.result import Termination
from finecast.solvers.signals import SearchInterrupt
from finecast.solvers.spatial.multigroup import MultiGroup, guaranteed_rates
from finecast.solvers.spatial.pricing import WMMSE_STEPS, price_modes

FRESH = 6
"""Random starts of a round of pricing."""

WARM = 6
"""Modes in use that a round starts from besides, at most."""

STALL = 24
"""Modes in use that a round starts from, at most, when the round before brought nothing."""

IMPROVES = 1e-3
"""A mode enters if it is worth more than 1 by this."""


@dataclass(frozen=True)
class Effort:
    """How much the search for modes does.

    Parameters
    ----------
    rounds
        Rounds of pricing, at most; with 0 the messages go one after another.
    steps
        Steps of Adam in a round, twice as many when it stalls. With 0, WMMSE searches alone.
    wmmse
        Steps of WMMSE in a round.
    """

    rounds: int = 40
    steps: int = 50
    wmmse: int = WMMSE_STEPS


@dataclass(frozen=True, eq=False)
class Modes:
    """Modes of one slot, and how long each lasts.

    Parameters
    ----------
    duration
        (D,) s, positive.
    beam
        (D, G, N, A), square root of watt; zero for a message that is not on the air.
    rate
        (D, G) guaranteed rate, bit/s.
    price
        (G,) s/bit, the time that another bit of each message would take; the bits at these prices
        are worth the total duration.
    sequential
        Seconds that the messages take one after another.
    termination
        Why the search stopped.
    """

    duration: FloatArray
    beam: ComplexArray
    rate: FloatArray
    price: FloatArray
    sequential: float
    termination: Termination

    @property
    def total(self) -> float:
        """Broadcast time of the slot, s."""
        return float(self.duration.sum())


def least_time(
    problem: MultiGroup,
    bits: FloatArray,
    bandwidth: float,
    alone: ComplexArray,
    *,
    deadline: Deadline = NEVER,
    effort: Effort = Effort(),
    seed: int = 0,
    callback: Callable[[float], None] | None = None,
) -> Modes:
    """Return modes that carry the messages in little time.

    Parameters
    ----------
    problem
        The messages.
    bits
        (G,) bits that each message has to carry, > 0.
    bandwidth
        Hz.
    alone
        (G, N, A) a beam for each message alone on the air.
    deadline
        When to stop. If it is over from the start, the messages go one after another.
    effort
        What a round does, and how many there are at most.
    seed
        Seed of the random starts.
    callback
        It is called with the duration, s, after every round.

    Raises
    ------
    ValueError
        A message cannot be sent at all by its beam, or carries no bits.

    Examples
    --------
    Two nodes of 1 W have a user each, and neither reaches the other's. Alone on the air, each
    message takes a second. Both fit in the same second.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.modes import least_time
    >>> from finecast.solvers.spatial.multigroup import MultiGroup
    >>> own = np.eye(2, dtype=bool)
    >>> channel = np.diag([3.0, 4.0])[:, :, None].astype(complex)
    >>> problem = MultiGroup(channel, np.zeros((2, 2)), np.ones(2), users=own, nodes=own)
    >>> bits, alone = 1e6 * np.log2([10.0, 17.0]), np.eye(2)[:, :, None]
    >>> modes = least_time(problem, bits, 1e6, alone)
    >>> print(f"{modes.sequential:.3f} s one after another, {modes.total:.3f} s on shared air")
    2.000 s one after another, 1.000 s on shared air
    """
    # The modes of one message each come first. They are sequential delivery.
    count = len(problem.users)
    per_second = bandwidth / np.log(2.0)  # nats to bit/s
    beam = np.zeros((count, count, *alone.shape[1:]), dtype=np.complex128)
    beam[np.arange(count), np.arange(count)] = alone
    rate = guaranteed_rates(problem, beam) * per_second
    for i in range(count):
        if not (rate[i, i] > 0 and bits[i] > 0):
            raise ValueError(
                f"message {i}: {bits[i]:.6g} bits at {rate[i, i]:.6g} bit/s, both must be > 0"
            )
    sequential = float((bits / rate.diagonal()).sum())
    pool = _Pool(beam, rate, bits / sequential)
    generator = torch.Generator().manual_seed(seed)

    def search(warm: int, steps: int, wmmse: int) -> bool:
        """Add modes that shorten the programme; return whether there are any."""
        beam, nats = price_modes(
            problem,
            pool.price * per_second,
            pool.beam[pool.most_used(warm)],
            fresh=FRESH,
            steps=steps,
            wmmse=wmmse,
            generator=generator,
        )
        rate = nats * per_second
        good = rate @ pool.price > 1.0 + IMPROVES
        if good.any():
            pool.add(beam[good], rate[good])
        if callback is not None:
            callback(pool.value * sequential)
        return bool(good.any())

    # A round that brings nothing is repeated once, with more starts and steps.
    termination = Termination.COMPLETED if count == 1 else Termination.ITERATION_LIMIT
    steps, wmmse = effort.steps, effort.wmmse
    try:
        with one_thread():
            for _ in range(effort.rounds if count > 1 else 0):
                if deadline.over():
                    termination = Termination.TIME_LIMIT
                    break
                if search(WARM, steps, wmmse):
                    continue
                if not search(STALL, 2 * steps, 0 if steps else 2 * wmmse):
                    termination = Termination.COMPLETED
                    break
    except SearchInterrupt:
        termination = Termination.INTERRUPTED
    # A vertex of the programme has no more modes in use than messages.
    used = pool.most_used(count)
    duration, rate = pool.duration[used] * sequential, pool.rate[used]
    duration *= max(1.0, float((bits / (duration @ rate)).max()))  # what the simplex left short
    return Modes(
        duration=duration,
        beam=pool.beam[used],
        rate=rate,
        price=pool.price,
        sequential=sequential,
        termination=termination,
    )


class _Pool:
    """The modes known so far and the programme over them.

    Its units make every number about 1.

    Parameters
    ----------
    beam, rate
        (D, G, N, A) and (D, G) bit/s, the first modes: one for each message.
    need
        (G,) bit/s that carry the messages in the time of sequential delivery, the unit of time.
    """

    def __init__(self, beam: ComplexArray, rate: FloatArray, need: FloatArray) -> None:
        self.beam, self.rate, self.need = beam[:0], rate[:0], need
        self.highs = QuietHighs()
        for option, value in (("threads", 1), ("primal_feasibility_tolerance", 1e-10)):
            self.highs.setOptionValue(option, value)
        for _ in need:
            self.highs.addRow(1.0, np.inf, 0, np.zeros(0, np.int32), np.zeros(0))
        self.add(beam, rate)

    def add(self, beam: ComplexArray, rate: FloatArray) -> None:
        """Add modes and solve."""
        matrix = rate / self.need
        column, row = np.nonzero(matrix)
        start = np.searchsorted(column, np.arange(len(matrix))).astype(np.int32)
        self.highs.addCols(
            len(matrix), np.ones(len(matrix)), np.zeros(len(matrix)), np.full(len(matrix), np.inf),
            len(row), start, row.astype(np.int32), matrix[column, row],
        )  # fmt: skip
        self.beam = np.concatenate([self.beam, beam])
        self.rate = np.concatenate([self.rate, rate])
        self.highs.run()
        if self.highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return  # no status is believed: what was known stays
        solution = self.highs.getSolution()
        self.duration = np.maximum(np.array(solution.col_value), 0.0)
        self.price = np.maximum(np.array(solution.row_dual), 0.0) / self.need
        self.value = float(self.duration.sum())

    def most_used(self, count: int) -> IntArray:
        """Return the modes in use that last longest, at most so many."""
        order = np.argsort(-self.duration, kind="stable")
        used: IntArray = order[self.duration[order] > 0][:count]
        return used
