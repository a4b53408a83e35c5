"""Options that all learners of node networks share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from finecast.learners.networks.raw_features import OBSERVATIONS
from finecast.learners.options import MOST_ROUNDS, MOST_WIDTH, at_least, one_of
from finecast.solvers.heuristics.rules import KeepRule

CREDITS = ("block", "team")


def check_observations(observations: str, lookahead: bool) -> None:
    """Refuse unknown observations, and raw ones beside the look-ahead, which is none of them.

    Raises
    ------
    ValueError
        Names the option and what is allowed.
    """
    one_of("observations", observations, OBSERVATIONS)
    if observations == "raw" and lookahead:
        raise ValueError("lookahead: true is not allowed with observations = 'raw', must be false")


@dataclass(frozen=True)
class NodeOptions:
    """What a node's network is like, and how the nodes decide.

    Attributes
    ----------
    width, embedding
        Sizes of the hidden layers and of the embeddings.
    action_semantics
        Inner products with what is seen of each neighbour; else flat networks.
    in_turn
        Nodes decide in turn, else all at once.
    rounds
        How often every node decides what to keep, if in turn.
    lookahead
        The marginals of `mpc` are features, and its table is what is corrected; else the expected
        delay of the next slot is. Without, decisions are faster.
    credit
        "block": the delay of every block is learned from; "team": their sum alone.
    """

    width: int = 64
    embedding: int = 32
    action_semantics: bool = True
    in_turn: bool = True
    rounds: int = 3
    lookahead: bool = False
    credit: str = "block"

    def __post_init__(self) -> None:
        at_least(self, 1, "width", "embedding", most=MOST_WIDTH)
        at_least(self, 1, "rounds", most=MOST_ROUNDS)
        one_of("credit", self.credit, CREDITS)


class Observes:
    """Options of a learner that is told what the nodes see."""

    observations: str

    @property
    def raw(self) -> bool:
        """Whether observations are raw."""
        return self.observations == "raw"


class KeepsByRule(Observes):
    """Options of a learner that is told a keep rule."""

    keep: KeepRule
    in_turn: bool

    @property
    def joint(self) -> bool:
        """Whether what is kept is chosen for all blocks and nodes at once."""
        return self.keep == "joint" and self.in_turn and not self.raw


def nodes_of_flat(tensors: Mapping[str, Tensor], name: str) -> int:
    """Return N of a flat network, whose last layer `name` has 3 N outputs; 1 of any other."""
    heads = tensors.get(name)
    return 1 if heads is None else len(heads) // 3
