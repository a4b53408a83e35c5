"""Which of several ways to improve a plan has the next turn: the one that gains most for its cost.

Every way is worth what it gained last over what it has cost since the gain before. A failure adds
its cost and halves the gain, down to a floor that all share. So a way that gains goes on, one that
no longer does hands over, and where none gains all get the same time. This is a bandit with a
moving reward, and none starves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FORGETTING = 0.5
"""What a failure leaves of the last gain."""


@dataclass(frozen=True)
class Effort:
    """What one way has cost and gained.

    Attributes
    ----------
    gain
        Its last gain, halved with every failure since.
    cost
        What that gain had cost.
    since
        What its failures since have cost.
    """

    gain: float = 0.0
    cost: float = 0.0
    since: float = 0.0

    def after(self, gain: float, cost: float) -> Effort:
        """Return the effort after another turn."""
        if gain > 0:
            return Effort(gain, self.since + cost)
        return replace(self, gain=FORGETTING * self.gain, since=self.since + cost)

    def worth(self, floor: float) -> float:
        """Return the gain per cost, where no gain counts as less than the floor."""
        spent = self.cost + self.since
        return float("inf") if spent == 0 else max(self.gain, floor) / spent


def whose_turn(efforts: list[Effort], floor: float) -> int:
    """Return the number of the way that has the next turn; of equals, the first.

    Examples
    --------
    The first gained 4 s for 2 s of work. After two turns of 2 s without any gain it counts as 1 s
    for 6 s of work, less than the 1 s for 4 s of the second.

    >>> first, second = Effort().after(4.0, 2.0), Effort().after(1.0, 4.0)
    >>> whose_turn([first, second], 0.1)
    0
    >>> whose_turn([first.after(0.0, 2.0).after(0.0, 2.0), second], 0.1)
    1
    """
    worth = [effort.worth(floor) for effort in efforts]
    return worth.index(max(worth))
