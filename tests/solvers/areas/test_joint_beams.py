"""Joint beams: what a task carries, and that its objective is that of the judge."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from finecast.problem.scenario import read_scenario
from finecast.solvers.areas.air import efficiency_of, interference_of
from finecast.solvers.areas.joint_beams import (
    Joint,
    LocalMessages,
    _in_torch,
    _objective,
    by_message,
    joint_beams,
    joint_problem,
)

CAP = 7.4063


def case(seed: int) -> tuple[tuple[np.ndarray, ...], LocalMessages, np.ndarray]:
    """Return a slot of a city, a message to every user from its area, and matched beams."""
    instance = read_scenario("city-61").generate(seed)
    home, areas = instance.user_area[0], instance.areas
    user = np.flatnonzero(home >= 0)
    messages = LocalMessages(
        home[user],
        areas == home[user, None],
        np.eye(len(home), dtype=bool)[user],
        np.linspace(1.0, 2.0, len(user)),
    )
    channel, error = instance.normalised_channel[0], instance.normalised_error[0]
    power = instance.network.power
    beam = channel[user] / np.linalg.norm(channel[user], axis=2, keepdims=True)
    beam = beam * (np.sqrt(power) * messages.sends)[..., None]
    return (channel, error, power, areas, home), messages, beam


def seconds(slot: tuple[np.ndarray, ...], messages: LocalMessages, beam: np.ndarray) -> float:
    """Return the objective with the interference of all areas, s Hz/bit."""
    channel, error, _, _, home = slot
    interference, signal = interference_of(channel, error, beam, messages.area, home)
    return float((messages.weight / efficiency_of(signal, interference, messages.users, CAP)).sum())


def objective(joint: Joint, beam: np.ndarray) -> float:
    """Return the objective of a task."""
    antennas = joint.start.shape[2] // joint.node.shape[1]
    return float(_objective(_in_torch(joint), torch.tensor(beam), joint.cap, antennas))


def test_a_task_knows_enough() -> None:
    """From neighbourhoods alone, the objective is that of all channels, to 2 % of the noise."""
    slot, messages, beam = case(0)
    joint = joint_problem(*slot, messages, beam, CAP)
    assert abs(objective(joint, joint.start) / seconds(slot, messages, beam) - 1.0) < 0.02
    found = joint_beams(joint, steps=30)
    better = by_message(joint, found, beam.shape)
    assert seconds(slot, messages, better) < 0.8 * seconds(slot, messages, beam)
    assert not better[~messages.sends].any()


def test_a_task_carries_no_more_than_areas_exchange() -> None:
    """Of users whom an area does not reach there is no channel; not half of the arrays travels."""
    slot, messages, beam = case(1)
    joint = joint_problem(*slot, messages, beam, CAP)
    listening = messages.users.any(axis=0).sum()
    assert joint.channel.shape[1] < listening
    assert len(joint.own_channel) == listening
    assert len(pickle.dumps(joint)) < 0.5 * (slot[0].nbytes + slot[1].nbytes + beam.nbytes)
    # Channels that it does not carry do not matter, as long as they are as weak.
    channel = slot[0].copy()
    kept = np.zeros(channel.shape[:2], dtype=bool)
    for nodes, victims in zip(joint.node, joint.victim, strict=True):
        kept[np.ix_(victims[victims < joint.users], nodes[nodes >= 0])] = True
    kept |= slot[4][:, None] == slot[3]
    channel[~kept] *= 1j
    again = joint_problem(channel, *slot[1:], messages, beam, CAP)
    assert objective(again, again.start) == objective(joint, joint.start)
