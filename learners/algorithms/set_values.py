"""The critic: what the time after a slot costs, for a block under every set of nodes that keep it.

    G_j(K) = base_j(K) + mix_z(q_1(K), ..., q_N(K)),   q_n(K) = [n in K] (a_n + sum_{m in K} b_nm)

a_n is the effect of keeping at node n alone. It comes from the environment branch of an action
semantics network. b_nm is the effect where node m keeps too: the inner product of the environment
embedding of n and the interaction embedding of m. So one pass of the network gives all 2^N sets.
`base` are the expected delays of the next slot, or the costs of the dynamic programme on expected
tables (`finecast.learners.world.lookahead`). The actors start there too. The network learns what is
missing.

The targets are backups on the requests of the next slot. They are the same for all sets K of a
block, so the chance of the requests cancels where sets are compared:

    y_j(K) = min over l of [tau_l(K) + broadcast(Q_l(K)) + U(Q_l(K))]  if j is needed, else U(K)
    U(Q)   = min over K' within Q of [lambda . K' + gamma G'_j(K')]

lambda, the price of storage, is what one more kept byte displaces. Without it every copy would seem
worth keeping. All costs are per byte, in units of the mean time from the cloud.

There are two kinds of prices: those of the programme on expected tables (`rents`), and those of the
joint keep of the next slot (`joint_rents`). The latter maximise the dual of that keep,

    sum_j s_j U_j(Q_j) - lambda . S  <=  min over keeps K that fit of sum_j s_j gamma G'_j(K_j)

where Q are the senders that were played and K_j is within Q_j. So with them the targets of all
blocks together, less a constant of the draw, are a lower bound on the joint backup, which keeps one
answer for all blocks and nodes. They miss it by the duality gap of one slot's knapsack.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from finecast.learners.networks.action_semantics import over_blocks, perceptron, pooled
from finecast.learners.networks.feature_basis import Basis
from finecast.learners.networks.features import NEIGHBOUR, OWN, STATE, Features, features
from finecast.learners.networks.mixers import mixer
from finecast.learners.networks.raw_features import raw_features
from finecast.learners.world.environment import View, near_nodes
from finecast.learners.world.episodes import Slot
from finecast.learners.world.joint import joint_prices, roomy
from finecast.learners.world.lookahead import Lookahead, best_subset


@dataclass(frozen=True, eq=False)
class Rows:
    """Some (draw, block) pairs of a batch.

    Attributes
    ----------
    draw, block
        (R,) int64.
    """

    draw: Tensor
    block: Tensor

    @classmethod
    def where(cls, mask: Tensor) -> Rows:
        """Return the pairs at which a (E, J) bool is true."""
        draw, block = mask.nonzero(as_tuple=True)
        return cls(draw, block)

    def sample(self, count: int, generator: Generator) -> Rows:
        """Return at most so many of the pairs, drawn at random."""
        index = torch.randperm(len(self.draw), generator=generator)[:count].to(self.draw.device)
        return Rows(self.draw[index], self.block[index])

    def pick(self, values: Tensor) -> Tensor:
        """Return (R, ...) of an array (E, J, ...)."""
        return values[self.draw, self.block]


class SetCritic(nn.Module):
    """What keeping costs over the base, for all node sets.

    Parameters
    ----------
    mixing
        Name of the mixer.
    action_semantics
        Whether effects on other nodes are inner products; else a flat network, for fixed N.
    nodes
        N, which only the flat network depends on.
    width, embedding
        Of hidden layers and of embeddings.
    level
        A cost that all sets of a block share is learned too: targets of the delays that were paid
        have it (`finecast.learners.algorithms.paid`).
    """

    def __init__(
        self,
        *,
        mixing: str = "monotonic",
        action_semantics: bool = True,
        nodes: int = 0,
        width: int = 64,
        embedding: int = 32,
        level: bool = False,
    ) -> None:
        super().__init__()
        self.semantic = action_semantics
        neighbours = len(NEIGHBOUR) * (1 if action_semantics else nodes - 1)
        outputs = embedding if action_semantics else nodes - 1
        if action_semantics:
            self.neighbour = perceptron((len(NEIGHBOUR), embedding, embedding))
        self.state = nn.Linear(len(STATE), width)
        inputs = len(OWN) + (2 * embedding if action_semantics else neighbours)
        self.own = nn.Linear(inputs, width)
        self.hidden = nn.Linear(width, width)
        self.alone = nn.Linear(width, 1)
        self.meets = nn.Linear(width, outputs, bias=False)
        for head in (self.alone, self.meets):
            for parameter in head.parameters():
                nn.init.zeros_(parameter)
        self.mixer = mixer(mixing, len(STATE) + len(OWN))
        self.level = level_network(width) if level else None

    def forward(self, seen: Features) -> Tensor:
        """Return (R, S).

        Parameters
        ----------
        seen
            Of R (draw, block) pairs: own (R, N, F), neighbour (R, N, N - 1, F), state (R, F).
        """
        # What a node sees: of the block, of its neighbours, of the whole system.
        if self.semantic:
            others = self.neighbour(seen.neighbour)  # (R, N, N - 1, d)
            near = pooled(others)
        else:
            near = seen.neighbour.flatten(start_dim=2)
        own = self.own(torch.cat([seen.own, near], dim=-1))
        h = torch.relu(self.hidden(torch.relu(own + over_blocks(self.state(seen.state), own))))
        # What keeping is worth alone, a_n, and beside each other node, b_nm.
        alone = self.alone(h)  # (R, N, 1)
        meets = self.meets(h)
        if self.semantic:
            meets = (others @ meets[..., None])[..., 0] / others.shape[-1] ** 0.5
        # The values of the nodes of every set, mixed.
        nodes = alone.shape[1]
        member = members(nodes, h.device)
        company = torch.einsum("snm,rnm->rsn", member[:, near_nodes(nodes, h.device)], meets)
        values = member * (alone.transpose(1, 2) + company)
        whole = torch.cat([seen.state, seen.own.mean(dim=1)], dim=1)
        mixed: Tensor = self.mixer(values, whole)
        return mixed if self.level is None else mixed + self.level(whole)


def level_network(width: int) -> nn.Module:
    """Return a network from the state and the mean over nodes of OWN to one value, 0 at first."""
    return perceptron((len(STATE) + len(OWN), width, 1), zero_last=True)


def members(nodes: int, device: torch.device) -> Tensor:
    """Return (S, N) float32, 1 for the nodes of every set."""
    sets = torch.arange(1 << nodes, device=device)
    return (sets[:, None] >> torch.arange(nodes, device=device) & 1).float()


def unit_of(slot: Slot) -> Tensor:
    """Return (E,) float64 seconds per byte: the mean time from the cloud."""
    return slot.link[:, -1].mean(dim=1)


def seen_of(seen: Features, rows: Rows) -> Features:
    """Return what all nodes see of some (draw, block) pairs, from the features of all nodes."""
    return Features(
        own=seen.own[rows.draw, :, rows.block],
        neighbour=seen.neighbour[rows.draw, :, rows.block],
        cloud=seen.cloud[rows.draw, :, rows.block],
        state=seen.state[rows.draw],
        real=rows.pick(seen.real),
        may_pull=seen.may_pull[rows.draw, :, rows.block],
        may_keep=seen.may_keep[rows.draw, :, rows.block],
    )


def critic_view(slot: Slot, cached: Tensor, held: Tensor) -> View:
    """Return what the critic sees: all is delivered, nobody has decided what to keep."""
    return View(slot, cached, held, torch.zeros_like(cached), in_turn=False, keeping=True)


def base_costs(slot: Slot, values: Lookahead | None, rows: Rows) -> Tensor:
    """Return (R, S) cost of keeping without the network, in units, before rent.

    Parameters
    ----------
    slot
        The slot.
    values
        Its lookahead, whose costs they are; None: the expected delays of the next slot.
    rows
        The (draw, block) pairs.
    """
    table = slot.worth[:, 0] if values is None else values.cost
    cost = table[rows.draw, rows.pick(slot.kind)]
    return (cost / unit_of(slot)[rows.draw, None]).float()


def set_costs(
    network: nn.Module,
    view: View,
    values: Lookahead | None,
    rows: Rows,
    basis: Basis | None = None,
    *,
    raw: bool = False,
) -> Tensor:
    """Return (R, S) G(K): the base and what a network has learnt, in units; 0 after the last slot.

    Parameters
    ----------
    network
        From the features (R, N, ...) of all nodes to (R, S).
    view
        As `critic_view` returns.
    values
        Lookahead of the slot, if it is used.
    rows
        The (draw, block) pairs.
    basis
        Of the features of the slot, if it is known already.
    raw
        Raw features, and no base.
    """
    if view.slot.t == view.slot.slots - 1:
        return torch.zeros((len(rows.draw), 1 << view.slot.nodes), device=rows.draw.device)
    seen = features(view, None, values, basis)
    learnt: Tensor = network(seen_of(raw_features(seen) if raw else seen, rows))
    return learnt if raw else base_costs(view.slot, values, rows) + learnt


def rents(slot: Slot, values: Lookahead) -> Tensor:
    """Return (E, S) lambda . K for all sets K, in units."""
    price = values.price[:, 0].float() / unit_of(slot)[:, None].float()
    return price @ slot.member.float().T


def joint_rents(slot: Slot, held: Tensor, cost: Tensor) -> Tensor:
    """Return (E, J, S) lambda . K for all sets K, at the prices of the joint keep of the slot.

    It is infinite for sets with a node that has no room for the block, not even for it alone.

    Parameters
    ----------
    slot
        The slot.
    held
        (E, J) int64 the nodes that have each block when all is delivered.
    cost
        (E, J, S) float32 G of all blocks that some node has.
    """
    rent = (joint_prices(slot, held, cost) @ slot.member.float().T)[:, None]
    sets = torch.arange(rent.shape[2], device=rent.device)
    return torch.where((sets & ~roomy(slot)[..., None]) != 0, torch.inf, rent)


def set_targets(
    network: nn.Module,
    view: View,
    look: Lookahead | None,
    rows: Rows,
    *,
    lookahead: bool,
    discount: float,
    joint: bool,
) -> Tensor:
    """Return (R, S) y(K) of some blocks, in units.

    Parameters
    ----------
    network
        The target network, G'.
    view
        The next slot, as `critic_view` returns.
    look
        Its lookahead; None where it is neither the base nor gives the prices.
    rows
        The (draw, block) pairs.
    lookahead
        Whether the costs of the lookahead are the base.
    discount
        gamma.
    joint
        Back up through the prices of the slot's joint keep; else through those of the programme.
    """
    slot = view.slot
    values = look if lookahead else None
    if not joint:
        assert look is not None
        later = discount * set_costs(network, view, values, rows)
        return backup(slot, value_after(rents(slot, look)[rows.draw] + later), rows)
    # What the blocks cost after the slot; all that are there share its storage.
    there = (view.held != 0) & slot.real
    there[rows.draw, rows.block] = True
    every = Rows.where(there)
    table = torch.zeros((*there.shape, 1 << slot.nodes), device=there.device)
    table[every.draw, every.block] = discount * set_costs(network, view, values, every)
    rented = table + joint_rents(slot, view.held, table)
    return backup(slot, value_after(rows.pick(rented)), rows)


def value_after(cost: Tensor) -> Tensor:
    """Return (R, S) U(Q), the least over all K within Q of the cost (R, S), rent included."""
    return best_subset(cost[None])[0][0]


def backup(slot: Slot, after: Tensor, rows: Rows) -> Tensor:
    """Return (R, S) y(K): the cost of the slot and after it, when the sets K hold the block.

    Parameters
    ----------
    slot
        The next slot.
    after
        (R, S) U of that slot, in units.
    rows
        The (draw, block) pairs.
    """
    unit = unit_of(slot)[rows.draw]
    # Every chain level l: its senders Q_l(K), the time on the air, the time of the migrations.
    sender = slot.chain_sender[rows.draw]  # (R, S, L)
    group = rows.pick(slot.group)
    air = slot.broadcast[rows.draw, group.clamp(min=0)] / unit[:, None]
    spent = slot.chain_time[rows.draw] / unit[:, None, None]
    # The best level, where the block is needed.
    total = (air.float() + after).gather(1, sender.flatten(1)).unflatten(1, sender.shape[1:])  # type: ignore[no-untyped-call]
    needed = (spent.float() + total).amin(dim=2)
    return torch.where((group >= 0)[:, None], needed, after)
