"""Least broadcast time of a slot when several messages may share the air.

    min sum_m d_m   subject to   sum_m d_m R_mi >= b_i for every message i,   d >= 0,

over all modes m, a mode being beams of all messages within the power limits and R_mi the guaranteed
rates (docs/formulation.md section 7). Column generation: the modes of one message each, which are
sequential delivery, come first; HiGHS solves the programme over the modes known so far; its prices
pi_i (s/bit) ask for a mode with sum_i pi_i R_i > 1, which would shorten it; and so on until the
search finds none.
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
from finecast.solvers.spatial.multigroup import MultiGroup, guaranteed_rates
from finecast.solvers.spatial.pricing import WMMSE_STEPS, price_modes

ROUNDS = 40
"""Rounds of pricing, at most."""

FRESH, WARM = 6, 6
"""Random starts and modes in use that a round starts from."""

STALL = 24
"""Modes in use that a round starts from, at most, when the round before brought nothing."""

STEPS = 50
"""Steps of Adam in a round; twice as many at a stall and in the final polish."""

IMPROVES = 1e-3
"""A mode enters if it is worth more than 1 by this."""


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
    rounds: int = ROUNDS,
    steps: int = STEPS,
    wmmse: int = WMMSE_STEPS,
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
    rounds
        Rounds of pricing, at most; with 0 the messages go one after another.
    steps, wmmse
        Steps of Adam and of WMMSE in a round; with no step of Adam, WMMSE searches alone.
    seed
        Seed of the random starts.
    callback
        Told the duration after every round.

    Raises
    ------
    ValueError
        A message cannot be sent at all by its beam, or carries no bits.
    """
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
    solo = bits / rate.diagonal()
    sequential = float(solo.sum())
    pool = _Pool(beam, rate, bits / sequential)
    generator = torch.Generator().manual_seed(seed)

    def search(warm: int, fresh: int, steps: int, wmmse: int) -> bool:
        found, nats = price_modes(
            problem,
            pool.price * per_second,
            pool.beam[pool.most_used(warm)],
            fresh=fresh,
            steps=steps,
            wmmse=wmmse,
            generator=generator,
        )
        found_rate = nats * per_second
        good = found_rate @ pool.price > 1.0 + IMPROVES
        if good.any():
            pool.add(found[good], found_rate[good])
        if callback is not None:
            callback(pool.value * sequential)
        return bool(good.any())

    termination = Termination.COMPLETED if count == 1 else Termination.ITERATION_LIMIT
    try:
        with one_thread():
            for _ in range(rounds if count > 1 else 0):
                if deadline.over():
                    termination = Termination.TIME_LIMIT
                    break
                if search(WARM, FRESH, steps, wmmse):
                    continue
                if not search(STALL, FRESH, 2 * steps, 0 if steps else 2 * wmmse):
                    termination = Termination.COMPLETED
                    break
    except KeyboardInterrupt:
        termination = Termination.INTERRUPTED
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
    """The modes known so far and the programme over them, in units that make every number about 1.

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
        """Return the modes that last longest, those not in use left out."""
        order = np.argsort(-self.duration, kind="stable")
        used: IntArray = order[self.duration[order] > 0][:count]
        return used
