"""Spatial delivery: judged, never slower than one message after another, and its edge cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from repository import SCENARIOS

from finecast.problem.evaluation import evaluate
from finecast.problem.scenario import read_scenario
from finecast.problem.schedule import pipelined_ends
from finecast.problem.solution import Broadcast
from finecast.solvers.beamforming.by_name import solve_messages
from finecast.solvers.deadline import Deadline
from finecast.solvers.result import Termination
from finecast.solvers.signals import SearchInterrupt
from finecast.solvers.solve import solve
from finecast.solvers.spatial.delivery import share_the_air
from finecast.solvers.spatial.modes import Effort, Modes, least_time
from finecast.solvers.spatial.multigroup import MultiGroup, guaranteed_rates
from finecast.solvers.spatial.pipeline import pipelined_broadcast
from finecast.solvers.spatial.replan import alone_price

BANDWIDTH = 1e6


def drawn(groups, *, nodes=2, antennas=2, seed=0, error=0.0, power=None, sending=None):
    """Return a problem of Rayleigh channels for given user groups, bits, and beams alone."""
    rng = np.random.default_rng(seed)
    users = np.array(groups, dtype=bool)
    channel = rng.normal(size=(users.shape[1], nodes, antennas, 2)) @ [1, 1j] * 5
    member = np.ones((len(users), nodes), dtype=bool) if sending is None else np.array(sending)
    problem = MultiGroup(
        channel=channel,
        error=error * np.linalg.norm(channel, axis=2),
        power=np.ones(nodes) if power is None else np.array(power),
        users=users,
        nodes=member,
    )
    copies = (len(users), *channel.shape)
    alone = solve_messages(
        "multicast",
        np.broadcast_to(channel, copies),
        np.broadcast_to(problem.error, copies[:-1]),
        problem.power,
        node_mask=member,
        user_mask=users,
    )
    return problem, rng.uniform(1e6, 5e6, len(users)), alone.beamformer


def check(problem, bits, modes):
    """Every message gets its bits at guaranteed rates, within power, no slower than in turn."""
    rate = guaranteed_rates(problem, modes.beam) * BANDWIDTH / np.log(2)
    assert (modes.rate <= rate * (1 + 1e-12)).all()
    assert (modes.duration @ modes.rate >= bits * (1 - 1e-12)).all()
    power = (np.abs(modes.beam) ** 2).sum(axis=(1, 3))
    assert (power <= problem.power * (1 + 1e-12)).all()
    assert not modes.beam[:, ~problem.nodes].any()
    assert modes.total <= modes.sequential * (1 + 1e-9)
    assert bits @ modes.price == pytest.approx(modes.total, rel=1e-6)  # strong duality


def in_turn(problem, bits, alone):
    """Return the seconds of the messages one after another, straight from the rate formula."""
    own = [
        np.log2(
            1
            + min(
                max(0, abs(np.vdot(problem.channel[k], w)) - problem.error[k] @ lengths) ** 2
                for k in np.flatnonzero(listeners)
            )
        )
        for listeners, w in zip(problem.users, alone, strict=True)
        for lengths in [np.linalg.norm(w, axis=1)]
    ]
    return float((bits / (BANDWIDTH * np.array(own))).sum())


@pytest.mark.parametrize("error", [0.0, 0.05])
def test_faster_than_in_turn(error):
    """Four users of their own at two nodes of two antennas: sharing the air saves a good deal."""
    problem, bits, alone = drawn(np.eye(4), error=error)
    modes = least_time(problem, bits, BANDWIDTH, alone)
    check(problem, bits, modes)
    assert modes.sequential == pytest.approx(in_turn(problem, bits, alone))
    assert modes.total < 0.8 * modes.sequential
    assert len(modes.duration) <= len(bits)  # a vertex of the programme


@pytest.mark.parametrize("limits", [{"effort": Effort(rounds=0)}, {"deadline": Deadline.after(0)}])
def test_one_message_modes_are_sequential_delivery(limits):
    """With the one-message modes alone the programme is sequential delivery, price by price."""
    problem, bits, alone = drawn([[1, 1, 0], [0, 1, 1], [1, 0, 0]])
    modes = least_time(problem, bits, BANDWIDTH, alone, **limits)
    check(problem, bits, modes)
    assert modes.total == pytest.approx(in_turn(problem, bits, alone))
    assert ((modes.rate > 0).sum(axis=1) == 1).all()
    assert modes.price == pytest.approx(1 / modes.rate.sum(axis=0))


def test_one_user_wants_everything():
    """Messages for the same single user cannot share the air at a gain: the time of all bits at
    its best rate, as any scheme (the capacity of one user with all nodes)."""
    problem, bits, alone = drawn(np.ones((3, 1)))
    modes = least_time(problem, bits, BANDWIDTH, alone, effort=Effort(rounds=3))
    check(problem, bits, modes)
    assert modes.total == pytest.approx(modes.sequential, rel=1e-6)


def test_one_message():
    """Nothing to share: the message's own time, at once."""
    problem, bits, alone = drawn([[1, 1, 1]])
    modes = least_time(problem, bits, BANDWIDTH, alone)
    check(problem, bits, modes)
    assert modes.termination is Termination.COMPLETED
    assert modes.total == pytest.approx(in_turn(problem, bits, alone))


@pytest.mark.parametrize(
    ("groups", "options"),
    [
        (np.eye(6), {"nodes": 1, "antennas": 2}),  # more messages than antennas
        ([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], {}),  # one overlaps with all
        (np.eye(3), {"power": [1.0, 0.0]}),  # a node with no power
        (np.eye(3), {"sending": [[True, False], [False, True], [True, True]]}),
        (np.eye(2), {"nodes": 1, "antennas": 1}),
    ],
)
def test_edge_cases(groups, options):
    """Feasible and no slower, whatever the shape of the messages."""
    problem, bits, alone = drawn(groups, **options)
    modes = least_time(problem, bits, BANDWIDTH, alone, effort=Effort(rounds=4))
    check(problem, bits, modes)


def test_two_far_cells_share_the_air_fully():
    """Two nodes that do not hear each other: both at once, at full power, in the longer time."""
    channel = np.zeros((2, 2, 1), dtype=complex)
    channel[0, 0], channel[1, 1] = 3.0, 4.0
    problem = MultiGroup(
        channel=channel,
        error=np.zeros((2, 2)),
        power=np.ones(2),
        users=np.eye(2, dtype=bool),
        nodes=np.eye(2, dtype=bool),
    )
    bits = BANDWIDTH * np.log2([10.0, 17.0])  # one second each
    alone = np.eye(2)[:, :, None].astype(complex)
    modes = least_time(problem, bits, BANDWIDTH, alone)
    check(problem, bits, modes)
    assert modes.sequential == pytest.approx(2.0)
    assert modes.total == pytest.approx(1.0, rel=1e-6)


def test_deterministic_for_a_seed():
    """The same seed gives the same modes to the last bit."""
    problem, bits, alone = drawn(np.eye(3))
    first, second = (
        least_time(problem, bits, BANDWIDTH, alone, effort=Effort(rounds=3), seed=7)
        for _ in range(2)
    )
    assert np.array_equal(first.beam, second.beam)
    assert np.array_equal(first.duration, second.duration)


def test_interruption_keeps_the_best_so_far():
    """Ctrl-C after the first round: the modes known by then, and the ending says so."""

    def interrupt(total):
        raise SearchInterrupt

    problem, bits, alone = drawn(np.eye(4))
    modes = least_time(problem, bits, BANDWIDTH, alone, callback=interrupt)
    check(problem, bits, modes)
    assert modes.termination is Termination.INTERRUPTED
    assert modes.total < modes.sequential


def test_hopeless_message_is_refused():
    """A message that no user can decode is named, not divided by."""
    problem, bits, alone = drawn(np.eye(2))
    alone[1] = 0
    with pytest.raises(ValueError, match="message 1"):
        least_time(problem, bits, BANDWIDTH, alone)


def scenario(name="tiny", seed=0, **changes):
    """Return a spatial instance of a shipped scenario."""
    instance = read_scenario(SCENARIOS / f"{name}.toml").generate(seed)
    return replace(instance, **{"delivery": "spatial", **changes})


@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
@pytest.mark.parametrize("seed", range(3))
def test_judged_and_no_worse(schedule, seed):
    """On shared air the same placement is feasible and, by the judge, no slower."""
    instance = scenario(seed=seed, schedule=schedule)
    plan = solve(instance, "greedy", spatial_time=0.0).solution
    shared = share_the_air(instance, plan, seed=seed)
    before, after = evaluate(instance, plan), evaluate(instance, shared.solution)
    assert [str(v) for v in after.violations] == []
    assert after.delay <= before.delay
    assert np.array_equal(shared.solution.cache, plan.cache)
    for broadcast, price, alone in zip(
        plan.broadcasts,
        shared.seconds_per_bit,
        (alone_price(instance, b) for b in plan.broadcasts),
        strict=True,
    ):
        assert price.shape == (broadcast.messages,)
        assert (price <= alone * (1 + 1e-6)).all()  # the mode of one message is worth at most 1


@pytest.mark.parametrize("seed", range(2))
def test_no_comp_is_reuse_one(seed):
    """Without CoMP every user listens to its strongest node alone, nodes send at the same time,
    and what they do to each other is counted by the judge."""
    instance = scenario("vision-small", seed=seed)
    result = solve(instance, "greedy", restrict="no-comp", spatial_time=0.3)
    assert result.evaluation.feasible
    strength = np.linalg.norm(instance.channel_estimate[0], axis=2)
    strongest = (strength * np.sqrt(instance.network.power)).argmax(axis=1)
    broadcast = result.solution.broadcasts[0]
    assert (broadcast.nodes.sum(axis=1) == 1).all()
    for listeners, nodes in zip(broadcast.users, broadcast.nodes, strict=True):
        assert set(strongest[listeners]) == set(np.flatnonzero(nodes))
    together = np.zeros((broadcast.modes, instance.nodes), dtype=bool)
    np.logical_or.at(together, broadcast.mode, broadcast.nodes[broadcast.message])
    assert (together.sum(axis=1) > 1).any()
    alone = solve(instance, "greedy", restrict="no-comp", spatial_time=0.0)
    assert result.lower_bound <= result.delay < alone.delay


def test_every_restriction():
    """Restricted systems share the air as well: reuse one is no-comp with spatial delivery."""
    for restrict in ("coarse", "no-migration", "no-comp", "unicast", "non-robust"):
        in_turn_ = solve(scenario(), "greedy", restrict=restrict, spatial_time=0.0)
        shared = solve(scenario(), "greedy", restrict=restrict)
        assert shared.evaluation.feasible, restrict
        assert shared.evaluation.planned_delay <= in_turn_.evaluation.planned_delay, restrict


@pytest.mark.parametrize("seed", range(4))
def test_pipelined_pieces_carry_everything(seed):
    """Random modes and migrations: every bit is sent, each mode lasts as long as it should, and
    the end is neither before the broadcast time nor after migration and broadcast in turn."""
    rng = np.random.default_rng(seed)
    bundle = np.array([0, 0, 0, 1, 1, 2])
    bits = rng.uniform(1, 5, 6)
    rate = rng.uniform(1, 3, (3, 3)) * (rng.random((3, 3)) < 0.7)
    rate[np.arange(3), np.arange(3)] = 2.0
    duration = rng.uniform(1, 2, 3)
    duration *= (np.bincount(bundle, bits) / (duration @ rate)).max()
    modes = Modes(
        duration, np.ones((3, 3, 1, 1), dtype=complex), rate, rng.random(3), 0.0,
        Termination.COMPLETED,
    )  # fmt: skip
    messages = Broadcast(
        users=np.eye(3, dtype=bool)[bundle],
        nodes=np.ones((6, 1), dtype=bool),
        blocks=np.eye(6, dtype=bool),
        duration=np.ones(6),
        mode=np.arange(6),
        message=np.arange(6),
        beam=np.ones((6, 1, 1), dtype=complex),
        rate=np.ones(6),
    )
    migration = rng.uniform(0, 3, 6) * (rng.random(6) < 0.6)
    pieces = pipelined_broadcast(modes, messages, bundle, bits, migration)
    block = pieces.blocks.argmax(axis=1)
    sent = np.bincount(
        block[pieces.message], pieces.duration[pieces.mode] * pieces.rate, minlength=6
    )
    assert (sent >= bits * (1 - 1e-9)).all()
    assert pieces.duration.sum() <= duration.sum() * (1 + 1e-12)
    ready = np.zeros(pieces.modes)
    np.maximum.at(ready, pieces.mode, np.cumsum(migration[block])[pieces.message])
    end = pipelined_ends(ready, pieces.duration)[-1]
    assert end <= migration.sum() + duration.sum() + 1e-9


def test_vision_small_is_a_fifth_faster():
    """What spatial delivery is for: at least 20% off the delay of sequential delivery."""
    instance = scenario("vision-small", seed=1)
    shared = solve(instance, "greedy", spatial_time=1.0)
    alone = solve(instance, "greedy", spatial_time=0.0)
    assert shared.evaluation.feasible
    assert shared.lower_bound <= shared.delay <= 0.8 * alone.delay


def test_pipelined_pieces_by_hand():
    """One mode of 6 s carries bundle 0 (messages 0 and 1, 3 bits each) and bundle 1 (message 2).

    Message 1 migrates for 4 s. At hand are 0 and 2: three seconds with both, then a wait of a
    second for message 1, then it goes with the rest of message 2: over after 7 s and not after
    4 + 6 = 10 s, as one after the other.
    """
    modes = Modes(
        duration=np.array([6.0]),
        beam=np.ones((1, 2, 1, 1), dtype=complex),
        rate=np.array([[1.0, 1.0]]),
        price=np.array([1.0, 0.0]),
        sequential=12.0,
        termination=Termination.COMPLETED,
    )
    messages = Broadcast(
        users=np.array([[1, 0], [1, 0], [0, 1]], dtype=bool),
        nodes=np.ones((3, 1), dtype=bool),
        blocks=np.eye(3, dtype=bool),
        duration=np.ones(3),
        mode=np.arange(3),
        message=np.arange(3),
        beam=np.ones((3, 1, 1), dtype=complex),
        rate=np.ones(3),
    )
    migration = np.array([0.0, 4.0, 0.0])
    pieces = pipelined_broadcast(
        modes, messages, np.array([0, 0, 1]), np.array([3.0, 3.0, 6.0]), migration
    )
    assert pieces.blocks.argmax(axis=1).tolist()[-1] == 1  # the migrating one comes last
    assert pieces.duration.tolist() == [3.0, 3.0]
    ready = np.array([0.0, 4.0])
    assert pipelined_ends(ready, pieces.duration)[-1] == 7.0
    sent = pieces.blocks[pieces.message].argmax(axis=1)
    assert {(m, j) for m, j in zip(pieces.mode.tolist(), sent.tolist(), strict=True)} == {
        (0, 0), (0, 2), (1, 1), (1, 2),
    }  # fmt: skip
