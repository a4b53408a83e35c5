"""A PettingZoo parallel environment, so that learners of other libraries can be used.

The environment has one scenario, and every reset draws an instance of it. The agents are the nodes.
They decide at once. An action is (2 J,) integers. The first J say for every block where to pull it
from: 0 is nothing, 1 + n' is node n', N + 1 is the cloud. The last J say for every block whether to
keep it, 0 or 1. Where the blocks to keep do not fit, those that save most in the next slot by
expectation are kept (docs/formulation.md section 6). The reward of every agent is minus the slot
delay in seconds.

Observations are the features of `finecast.learners.networks.features` in one vector, as trainers
want them: those of a node's own blocks, of its neighbours, of the cloud, and of the state. The
infos always have the same keys. `action_mask` is one vector with 1 for every choice that has an
effect, that of the first of the 2 J integers, then of the second and so on, and
`action_space(agent).sample(mask)` takes it. `delay_s` is the delay
of the slot that was played, 0 after a reset. `seed` is that of the instance. J. Terry et al.,
PettingZoo, NeurIPS 2021, describe the interface.

Raises
------
MissingExtra
    On import, where PettingZoo or Gymnasium is not installed.
"""

from __future__ import annotations

import math
import operator
from typing import Any, Literal

import numpy as np
import torch

from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, STATE, Features, features
from finecast.learners.world.area_draws import trained_on
from finecast.learners.world.baselines import savings
from finecast.learners.world.draws import check_instance, episodes_of, fitted_exponent, surrogate_of
from finecast.learners.world.environment import (
    NodePolicy,
    View,
    deliver,
    keep_turns,
    packed,
)
from finecast.learners.world.episodes import Episodes
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.solvers.extras import MissingExtra

try:
    from gymnasium import spaces
    from pettingzoo import ParallelEnv
except ModuleNotFoundError as error:
    raise MissingExtra("finecast.learners.parallel_env", "pettingzoo") from error

LARGEST_SEED = 2**31
"""Upper limit of the seeds of instances that are drawn by resets without a seed."""


class NodeActions(spaces.MultiDiscrete):
    """The actions of a node, which can also be sampled by the flat mask of the infos."""

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray[Any, Any]:
        """Return a random action; a mask is one vector, or a tuple with a part for each integer."""
        if isinstance(mask, np.ndarray):
            mask = tuple(np.split(mask.astype(np.int8), np.cumsum(self.nvec)[:-1]))
        return np.asarray(super().sample(mask, probability))


class DownloadingEnv(ParallelEnv[str, Any, Any]):  # type: ignore[misc]
    """Nodes that cache, pull and keep parameter blocks, all at once.

    Parameters
    ----------
    scenario
        The instances are drawn from it. It has at most 8 nodes, sequential delivery and schedule.
    rates
        "surrogate" takes rates from a closed form, in milliseconds per draw. "true" computes them
        by beamforming, in seconds per draw.
    seed
        Seed of the instances that are drawn by resets without a seed.
    rate_cache
        As in `finecast.solvers.prepared.prepare`, for true rates.
    observations
        "flat" is one vector. "dict" keeps the features apart, as `own` (J, F), `neighbour`
        (J, N - 1, F), `cloud` (J, F) and `state` (F,).

    Raises
    ------
    ValueError
        The scenario is not of that sort.
    """

    metadata = {"name": "finecast_v0", "render_modes": [], "is_parallelizable": True}  # noqa: RUF012

    def __init__(
        self,
        scenario: Scenario,
        *,
        rates: Literal["surrogate", "true"] = "surrogate",
        seed: int = 0,
        rate_cache: str | None = None,
        observations: Literal["flat", "dict"] = "flat",
    ) -> None:
        if observations not in ("flat", "dict"):
            raise ValueError(
                f"observations: {observations!r} is not allowed, must be 'flat' or 'dict'"
            )
        if rates not in ("surrogate", "true"):
            raise ValueError(f"rates: {rates!r} is not allowed, must be 'surrogate' or 'true'")
        self.scenario, self.rates, self.rate_cache = trained_on(scenario), rates, rate_cache
        self._rng = np.random.default_rng(seed)
        example = self.scenario.generate(seed)
        check_instance(example, "scenario")
        self._exponent = fitted_exponent(example) if rates == "surrogate" else 0.0
        nodes, blocks = example.nodes, example.library.blocks
        self.possible_agents = [f"node_{n}" for n in range(nodes)]
        self.agents: list[str] = []
        self.render_mode = None
        self._actions = {
            agent: NodeActions([nodes + 2] * blocks + [2] * blocks)
            for agent in self.possible_agents
        }
        shapes = {
            "own": (blocks, len(OWN)),
            "neighbour": (blocks, nodes - 1, len(NEIGHBOUR)),
            "cloud": (blocks, len(CLOUD)),
            "state": (len(STATE),),
        }
        parts: dict[str, Any] = {
            name: spaces.Box(-np.inf, np.inf, shape, np.float32) for name, shape in shapes.items()
        }
        length = sum(math.prod(shape) for shape in shapes.values())
        self._flat = observations == "flat"
        self._observations = {
            agent: (
                spaces.Box(-np.inf, np.inf, (length,), np.float32)
                if self._flat
                else spaces.Dict(parts)
            )
            for agent in self.possible_agents
        }
        self.state_space = spaces.Box(-np.inf, np.inf, shapes["state"], np.float32)
        self._episode: Episodes | None = None
        self._cache = torch.zeros((1, nodes, blocks), dtype=torch.bool)
        self._t = self._seed = 0

    def observation_space(self, agent: str) -> Any:
        """Return the space of observations: the features."""
        return self._observations[agent]

    def action_space(self, agent: str) -> Any:
        """Return the space of actions: sources of all blocks, then whether to keep them."""
        return self._actions[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Draw an instance and return what the nodes observe in slot 0, and the infos.

        Parameters
        ----------
        seed
            Seed of the instance, and of the instances of later resets without a seed.
        options
            They are ignored.

        Raises
        ------
        ValueError
            The seed is negative or above 2^63 - 1.
        """
        if seed is not None:
            seed = operator.index(seed)
            if not 0 <= seed < 2**63:
                raise ValueError(f"seed: {seed} is not allowed, must be from 0 to {2**63 - 1}")
            self._rng = np.random.default_rng(seed)
        draw = int(self._rng.integers(LARGEST_SEED)) if seed is None else seed
        self._episode = self._episode_of(self.scenario.generate(draw))
        self._cache, self._t, self._seed = self._episode.start, 0, draw
        self.agents = list(self.possible_agents)
        return self._observed(delay=0.0)

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[
        dict[str, Any],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Play one slot. The last slot ends the episode, as terminated and as truncated.

        Nothing comes after it, so that no value of later slots is missed: terminated is what counts
        for learners that tell the two apart.

        Parameters
        ----------
        actions
            One action for every node.

        Raises
        ------
        RuntimeError
            The episode is over, or has not begun.
        ValueError
            An action is missing or outside its space.
        """
        if self._episode is None or not self.agents:
            raise RuntimeError("step: the episode is over, call reset")
        agents = self.agents
        chosen = torch.from_numpy(np.stack([self._checked(actions, name) for name in agents]))
        delay = self._play(self._episode, chosen)
        self._t += 1
        over = self._t == self._episode.slots
        observed, infos = self._observed(delay)
        if over:
            self.agents = []
        return (
            observed,
            dict.fromkeys(agents, -delay),
            dict.fromkeys(agents, over),
            dict.fromkeys(agents, over),  # SuperSuit's black_death ends where both are told
            infos,
        )

    def _play(self, episode: Episodes, chosen: torch.Tensor) -> float:
        """Play a slot by the actions (N, 2 J) of the nodes; return its delay in seconds."""
        # Action 0 is nothing (-1), 1 + n' is node n', N + 1 the cloud (N).
        source = chosen[None, :, : episode.blocks] - 1
        wanted = chosen[None, :, episode.blocks :] == 1
        slot, cached = episode.slot(self._t), packed(self._cache)
        delivery = deliver(slot, cached, source)
        kept = torch.zeros_like(cached)
        view = View(slot, cached, delivery.sender, kept, in_turn=False, keeping=True)
        self._cache = keep_turns(view, _Wanted(wanted))
        return float(delivery.delay.sum())

    def _episode_of(self, instance: Instance) -> Episodes:
        """Return the episode of an instance that was drawn."""
        if self.rates == "true":
            return episodes_of([instance], bound=False, rate_cache=self.rate_cache)
        return surrogate_of(instance, self._exponent)

    def state(self) -> np.ndarray[Any, Any]:
        """Return the state of the whole system, for mixers and central critics."""
        return np.asarray(self._features().state[0].numpy())

    def render(self) -> None:
        """Draw nothing."""

    def close(self) -> None:
        """Let go of nothing."""

    def _checked(self, actions: dict[str, Any], agent: str) -> np.ndarray[Any, Any]:
        """Return the action of an agent, if it is in its space."""
        if agent not in actions:
            raise ValueError(f"actions[{agent!r}]: is missing, every node must act")
        action = np.asarray(actions[agent])
        space = self._actions[agent]
        if action.dtype.kind not in "iu":  # nothing is cut to a whole number
            raise ValueError(f"actions[{agent!r}]: is of {action.dtype}, must be whole numbers")
        if action.shape != space.shape or not space.contains(action.astype(np.int64)):
            raise ValueError(f"actions[{agent!r}]: is not in the action space of the node")
        return action.astype(np.int64)

    def _features(self) -> Features:
        """Return what all nodes see; when the episode is over, the last slot once more."""
        if self._episode is None:
            raise RuntimeError("the episode has not begun, call reset")
        slot = self._episode.slot(min(self._t, self._episode.slots - 1))
        cached = packed(self._cache)
        return features(View(slot, cached, cached, torch.zeros_like(cached), in_turn=False), None)

    def _observed(self, delay: float) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the observations and the infos of all agents."""
        parts, masks = self._parts()
        observed = {
            agent: np.concatenate([part.ravel() for part in of_node.values()])
            if self._flat
            else of_node
            for agent, of_node in zip(self.agents, parts, strict=True)
        }
        infos = {
            agent: {"seed": self._seed, "delay_s": delay, "action_mask": masks[n]}
            for n, agent in enumerate(self.agents)
        }
        return observed, infos

    def _parts(self) -> tuple[list[dict[str, np.ndarray[Any, Any]]], np.ndarray[Any, Any]]:
        """Return the parts of every node's observation, and the action masks, a row a node."""
        seen = self._features()
        # A node may keep what it has and what it may pull. Action 0 of each kind is always allowed.
        may_pull, may_keep = seen.may_pull[0], (seen.may_keep | seen.may_pull.any(dim=-1))[0]
        nothing = torch.ones_like(may_keep[..., None])
        pulls = torch.cat([nothing, may_pull], dim=2).flatten(1)
        keeps = torch.stack([nothing[..., 0], may_keep], dim=2).flatten(1)
        masks = torch.cat([pulls, keeps], dim=1).to(torch.int8).numpy()
        parts = [
            {
                "own": seen.own[0, n].numpy(),
                "neighbour": seen.neighbour[0, n].numpy(),
                "cloud": seen.cloud[0, n].numpy(),
                "state": seen.state[0].numpy(),
            }
            for n in range(len(self.possible_agents))
        ]
        return parts, masks


class _Wanted(NodePolicy):
    """A node policy that keeps what the actions name, in the order of what a copy saves.

    Parameters
    ----------
    wanted
        (1, N, J) bool, what each node wants to keep.
    """

    def __init__(self, wanted: torch.Tensor) -> None:
        self.wanted = wanted

    def pull(self, view: View, n: int | None) -> None:
        return None

    def keep(self, view: View, n: int | None) -> torch.Tensor:
        return torch.where(self.wanted, savings(view, view.slot.worth[:, 0]), 0.0)
