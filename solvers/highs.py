"""HiGHS without a word on the standard output, within a deadline."""

from __future__ import annotations

import highspy

from finecast.solvers.deadline import PIVOT_WORK, Deadline, count_work

LEAST_S = 0.01
"""Seconds that HiGHS gets at least."""

MOST_STEPS = 2**31 - 1
"""What HiGHS takes for no limit of steps or nodes."""

INTEGER_FACTOR = 2.0
"""How much longer a simplex step takes with all that branch and bound does besides."""

PIVOTS_A_NODE = 20
"""Simplex steps of a node of branch and bound, about."""


_LIMITS = (
    highspy.HighsModelStatus.kTimeLimit,
    highspy.HighsModelStatus.kIterationLimit,
    highspy.HighsModelStatus.kSolutionLimit,
)


class QuietHighs(highspy.Highs):  # type: ignore[misc]
    """HiGHS, silent from its first call on.

    The constructor of highspy starts the callbacks, which prints a banner before the caller can
    turn the output off.
    """

    def enableCallbacks(self) -> None:  # noqa: N802
        """Turn the output off, then do what the constructor asked for."""
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()


def run_within(highs: QuietHighs, deadline: Deadline, *, integer: bool = False) -> None:
    """Run HiGHS until it is done or the deadline is over; its simplex steps count as work.

    Parameters
    ----------
    highs
        With its programme.
    deadline
        When to stop. HiGHS cannot count the steps of a programme with integers on its way: a limit
        of work is one of nodes there, of `PIVOTS_A_NODE` steps each.
    integer
        Some variables are integers.
    """
    pivot = (INTEGER_FACTOR if integer else 1.0) * PIVOT_WORK * (highs.getNumRow() + 1)
    pivots = deadline.work_left() / pivot
    nodes = min(highs.getOptionValue("mip_max_nodes")[1], pivots / PIVOTS_A_NODE + 1)
    highs.setOptionValue("time_limit", highs.getRunTime() + max(deadline.left(), LEAST_S))
    highs.setOptionValue("simplex_iteration_limit", int(min(pivots + 1, MOST_STEPS)))
    highs.setOptionValue("mip_max_nodes", int(min(nodes, MOST_STEPS)))
    highs.run()
    count_work(pivot * max(highs.getInfo().simplex_iteration_count, 0))
    if highs.getModelStatus() in _LIMITS:
        deadline.over()  # counts the phase as cut, unless another limit was met
