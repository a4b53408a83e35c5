"""Nodes that decide apart as a PettingZoo environment: each keeps blocks by what it sees.

Misses come by the best chain level of the slot, before the nodes act. An agent then sees what
`finecast.learners.networks.apart` lists, by its own beliefs, and says what it wants to keep of what
it has. Nothing of another node's observation is in its own.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces

from finecast.learners.algorithms.apart_actors import APART, plan_of
from finecast.learners.networks.apart import NEIGHBOUR, OWN, Seen, seen_apart
from finecast.learners.options import one_of
from finecast.learners.parallel_env import DownloadingEnv, NodeActions
from finecast.learners.world.draws import believed
from finecast.learners.world.environment import View, deliver, keep_by_score, packed
from finecast.learners.world.episodes import Episodes
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.solvers.information import Information


class ApartEnv(DownloadingEnv):
    """Nodes that decide at once, each on what it sees, what to keep.

    The observation of a node is `own` (J, F) and `neighbour` (J, N - 1, F); as "flat", one vector
    of both. Its action is J times 0 or 1: whether to keep each block. Of what it names, it keeps
    what saves most by its own beliefs, as far as it fits. The reward is minus the delay of the
    slot, the same for all.

    Parameters
    ----------
    scenario
        As in `DownloadingEnv`, of at most 24 slots.
    information
        What each node sees: "full", "delayed" or "local".
    rates, seed, rate_cache, observations
        As in `DownloadingEnv`.

    Raises
    ------
    ValueError
        The scenario is not of that sort, or the information is unknown.
    """

    metadata = {"name": "finecast_apart_v0", "render_modes": [], "is_parallelizable": True}  # noqa: RUF012

    def __init__(
        self,
        scenario: Scenario,
        information: Information = "delayed",
        *,
        rates: Literal["surrogate", "true"] = "surrogate",
        seed: int = 0,
        rate_cache: str | None = None,
        observations: Literal["flat", "dict"] = "flat",
    ) -> None:
        one_of("information", information, APART)
        super().__init__(
            scenario, rates=rates, seed=seed, rate_cache=rate_cache, observations=observations
        )
        self.information = information
        _, nodes, blocks = self._cache.shape
        shapes = {"own": (blocks, len(OWN)), "neighbour": (blocks, nodes - 1, len(NEIGHBOUR))}
        parts: dict[str, Any] = {
            name: spaces.Box(-np.inf, np.inf, shape, np.float32) for name, shape in shapes.items()
        }
        length = sum(math.prod(shape) for shape in shapes.values())
        flat = spaces.Box(-np.inf, np.inf, (length,), np.float32)
        space = flat if self._flat else spaces.Dict(parts)
        self._observations = dict.fromkeys(self.possible_agents, space)
        self._actions = {agent: NodeActions([2] * blocks) for agent in self.possible_agents}

    def _episode_of(self, instance: Instance) -> Episodes:
        """Return the episode of an instance that was drawn, with beliefs."""
        return believed(super()._episode_of(instance), instance, self.information)

    def _seen(self) -> tuple[View, Seen]:
        """Return the slot after its delivery, and what all nodes see of it."""
        if self._episode is None:
            raise RuntimeError("the episode has not begun, call reset")
        slot = self._episode.slot(min(self._t, self._episode.slots - 1))
        cached = packed(self._cache)
        held = deliver(slot, cached, None).sender
        view = View(slot, cached, held, torch.zeros_like(cached), in_turn=False, keeping=True)
        return view, seen_apart(slot, cached, held, plan_of(view, self.information))

    def _play(self, episode: Episodes, chosen: torch.Tensor) -> float:
        """Play a slot by the actions (N, J) of the nodes; return its delay in seconds."""
        view, seen = self._seen()
        slot = view.slot
        delay = float(deliver(slot, view.cached, None).delay.sum())
        above = seen.saved - seen.saved.amin(dim=2, keepdim=True) + 1.0
        score = torch.where(chosen[None] == 1, above, 0.0)[0]
        size = slot.size.expand(slot.nodes, -1)
        self._cache = keep_by_score(size, slot.storage[0], seen.may[0], score)[None]
        return delay

    def _parts(self) -> tuple[list[dict[str, np.ndarray[Any, Any]]], np.ndarray[Any, Any]]:
        """Return the parts of every node's observation, and the action masks, a row a node."""
        _, seen = self._seen()
        parts = [
            {"own": own.numpy(), "neighbour": neighbour.numpy()}
            for own, neighbour in zip(seen.own[0], seen.neighbour[0], strict=True)
        ]
        may = seen.may[0]
        masks = torch.stack([torch.ones_like(may), may], dim=2).flatten(1).to(torch.int8).numpy()
        return parts, masks
