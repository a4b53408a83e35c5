"""The network planner's day: one plan for a scenario, what it buys, and how sure that is."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Sequence

import numpy as np

from finecast.compare.planning.city import CityWork
from finecast.compare.planning.draws import TRAINING_DRAWS, Done, drawn
from finecast.compare.planning.figures import Move, NetworkPlan, SitePlan, Spread, spread
from finecast.compare.planning.one_area import OneAreaWork
from finecast.compare.planning.placing import Judged
from finecast.compare.planning.words import sentences
from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.scenario import Scenario, read_scenario
from finecast.solvers.result import Callback
from finecast.solvers.signals import SearchInterrupt


def plan(
    scenario: Scenario | str | os.PathLike[str],
    *,
    draws: int = 5,
    seed: int = 0,
    time_limit: float | None = 45.0,
    callback: Callback | None = None,
) -> NetworkPlan:
    """Plan a network: what to store at each site, and what that buys.

    The caches are chosen on `TRAINING_DRAWS` draws of the demand and judged on `draws` others, of
    which number 0 is the scenario's own instance. Between draws the positions of users within their
    cells, the requests and the channels differ. Sites, links, library and tastes are those of the
    seed.

    Parameters
    ----------
    scenario
        The scenario, or its path or shipped name.
    draws
        Draws to judge by, >= 1.
    seed
        Of the network.
    time_limit
        Seconds for the rates of messages and the bounds, about; None for no limit. What must be
        there takes what it takes. With several areas, draws and other ways for which there is no
        time are left out, and a note says so.
    callback
        Receives the progress.

    Returns
    -------
    The plan. Within `finecast.solvers.signals.ctrl_c_keeps_the_best`, Ctrl-C returns what there is
    once caches are chosen and one draw is judged.

    Raises
    ------
    ValueError
        The scenario is bad, or a user cannot be reached by any site of its area.
    """
    if draws < 1:
        raise ValueError(f"draws: {draws} is not allowed, must be >= 1")
    if time_limit is not None and not time_limit >= 0:
        raise ValueError(f"time_limit: {time_limit} is not allowed, must be >= 0 s")
    if not isinstance(scenario, Scenario):
        scenario = read_scenario(scenario)
    began = time.monotonic()
    first = drawn(scenario, seed, None)
    kind: type[OneAreaWork | CityWork] = OneAreaWork if first.area_count == 1 else CityWork
    work = kind(scenario, draws, seed, time_limit, callback)
    if scenario.delivery == "spatial":
        work.notes.append("The plan sends one message at a time; the scenario allows several.")
    # First the plan itself: rates of the training draws, caches, and one draw after the other.
    work.begin()
    own: list[Judged] = []
    done = Done()
    try:
        work.play(own)
        work.others(done, own)
    except SearchInterrupt:
        if not own:
            raise
        done.interrupted = True
    found = _assembled(work, work.cache(), own, done, time.monotonic() - began)
    return dataclasses.replace(found, sentences=tuple(sentences(found)))


def _assembled(
    work: OneAreaWork | CityWork, cache: BoolArray, own: list[Judged], done: Done, wall_s: float
) -> NetworkPlan:
    """Return the plan of what was computed."""
    network, library = work.network, work.library
    names = network.node_names or tuple(f"site {n}" for n in range(network.nodes))
    sites = []
    for n, name in enumerate(names):
        held = np.flatnonzero(cache[n])
        extra = done.extra[n] if n < len(done.extra) else (0, None)
        position = None
        if network.node_position is not None:
            position = (float(network.node_position[n, 0]), float(network.node_position[n, 1]))
        sites.append(
            SitePlan(
                name=name,
                position=position,
                storage_bytes=int(network.storage[n]),
                stored_bytes=int(library.block_size[held].sum()),
                blocks=tuple(held.tolist()),
                model_share=_model_share(library.model_blocks, library.block_size, cache[n]),
                extra_bytes=extra[0],
                saved_by_extra=extra[1],
            )
        )
    moves, moved, from_cloud = _moves(work, own, names)
    judged_by = [one.evaluation for one in own]
    instance = work.judging[0]
    in_time = [e.in_time_ratio for e in judged_by if not math.isnan(e.in_time_ratio)]
    due = set(instance.deadline[np.isfinite(instance.deadline)].tolist())
    bound = [b / instance.slots for b in done.bound]
    rate = network.backhaul_rate
    return NetworkPlan(
        name=instance.name,
        draws=len(own),
        training=TRAINING_DRAWS,
        seed=instance.seed or 0,
        slots=instance.slots,
        users=instance.users,
        sites=tuple(sites),
        models=library.model_names,
        model_bytes=tuple(library.model_size.tolist()),
        block_names=library.block_names,
        block_bytes=tuple(library.block_size.tolist()),
        cache=cache,
        moves=moves,
        moved_per_slot=moved,
        from_cloud_per_slot=from_cloud,
        slot_delay=spread([e.mean_slot_delay for e in judged_by]),
        wait=spread([e.mean_completion for e in judged_by]),
        wait_p95=spread([e.p95_completion for e in judged_by]),
        in_time=spread(in_time) if in_time else None,
        lower_bound=spread(bound) if bound else None,
        options=tuple(done.options),
        deadline_s=due.pop() if len(due) == 1 else None,
        notes=tuple(work.notes),
        interrupted=done.interrupted,
        areas=done.areas,
        slowest_area=_over(done, [e.longest_area_delay / instance.slots for e in judged_by]),
        wide_bytes=work.wide_bytes(own) if isinstance(work, CityWork) else 0.0,
        disturbance_db=_over(done, [e.interference_over_noise_db for e in judged_by]),
        links=tuple(
            (n, m, float(max(rate[n, m], rate[m, n])))
            for n in range(network.nodes)
            for m in range(n + 1, network.nodes)
            if max(rate[n, m], rate[m, n]) > 0
        ),
        wall_s=wall_s,
    )


def _over(done: Done, values: Sequence[float]) -> Spread | None:
    """Return a figure of areas over draws; None with one area, or where no draw has it."""
    known = [value for value in values if math.isfinite(value)]
    return spread(known) if done.areas and known else None


def _model_share(model_blocks: BoolArray, size: IntArray, held: BoolArray) -> FloatArray:
    """Return (M,) the share of each model's bytes among the blocks held (J,)."""
    return np.asarray((model_blocks & held) @ size / (model_blocks @ size))


def _moves(
    work: OneAreaWork | CityWork, own: list[Judged], names: tuple[str, ...]
) -> tuple[tuple[Move, ...], float, float]:
    """Return moves, bytes between sites and bytes from the cloud, mean per slot."""
    nodes, size = work.network.nodes, work.library.block_size
    flow = np.zeros((nodes + 1, nodes))
    for one in own:
        source = np.stack([np.asarray(s) for s in one.solution.source])
        _, receiver, block = np.nonzero(source >= 0)
        np.add.at(flow, (source[source >= 0], receiver), size[block])
    flow /= len(own) * work.judging[0].slots
    order = np.argsort(-flow, axis=None, kind="stable")
    of = [*names, "the cloud"]
    moves = tuple(
        Move(of[n], names[m], float(flow[n, m]))
        for n, m in zip(*np.unravel_index(order, flow.shape), strict=True)
        if flow[n, m] > 0
    )
    return moves, float(flow[:-1].sum()), float(flow[-1].sum())
