"""Instances drawn from a scenario: every part from its keys, its files and a seed of its own.

Every random part has a seed of its own, derived from (seed, name of the part), so that positions,
channels, CSI errors, links, tastes and requests vary one at a time.

The parts are of two sorts. The *network* is what stays as it is over the slots, and the demand
model: library, storage, links, preferences, positions, large-scale fading. A *path* is one course
of events on it: requests, fading, CSI errors. Many paths of one network have one seed and different
path numbers. *Places* are the positions of users and their large-scale fading, which can be drawn
anew while the rest of the network stays.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.channel import draw_channels, draw_true_channel, present_antennas
from finecast.problem.demand import Demand, draw_demand, sample
from finecast.problem.families import FamilySpec, build_family
from finecast.problem.instance import Instance
from finecast.problem.library import ModelLibrary, combine, read_library
from finecast.problem.measured import read_channels
from finecast.problem.network import db_to_linear
from finecast.problem.replay import Replay, read_replay
from finecast.problem.scenario_keys import (
    LARGEST_INSTANCE_BYTES,
    MOST_SEED,
    FamilySection,
    ReplaySection,
    ScenarioKeys,
)
from finecast.problem.scenario_network import (
    antennas_of,
    areas_of_nodes,
    beside,
    cells_of,
    districts_of,
    generator,
    nearest_nodes,
    network_of,
    node_positions,
    rng_of,
    sites_of,
    user_tracks,
)
from finecast.problem.shipped import find
from finecast.problem.site_tables import read_weights
from finecast.problem.sites import Sites
from finecast.problem.synthetic import synthetic_library
from finecast.problem.trace import read_trace
from finecast.problem.wording import hint


def draw_instance(
    keys: ScenarioKeys, seed: int = 0, path: int | None = None, places: int | None = None
) -> Instance:
    """Draw an instance; see `finecast.problem.scenario.Scenario.generate`.

    Parameters
    ----------
    keys
        The scenario.
    seed, path, places
        As there.

    Raises
    ------
    ValueError
        The parts do not fit together, or a file that the scenario names is bad.
    """
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"seed: {seed} is not allowed, must be from 0 to {MOST_SEED}")
    for name, number in (("path", path), ("places", places)):
        if number is not None and not 0 <= number <= MOST_SEED:
            raise ValueError(f"{name}: {number} is not allowed, must be from 0 to {MOST_SEED}")
    # What the files say, before anything is drawn. Then places, tastes and requests, channels:
    # each from a seed of its own.
    sites = sites_of(keys)
    cells, of_cell = cells_of(keys, sites)
    nodes = keys.nodes.count if sites is None else len(sites.names)
    users = keys.users.count if of_cell is None else len(of_cell)
    antennas = antennas_of(keys, sites)
    library = _library(keys, seed)
    _refuse_too_large(keys, library, nodes, users, int(antennas.max()))
    node_position = node_positions(keys) if sites is None else sites.position

    def track_for(number: int | None) -> FloatArray:
        return user_tracks(keys, seed, number, node_position, users, cells, of_cell)

    track = track_for(places)
    user_position = track[0]
    nearest = nearest_nodes(user_position, node_position)
    districts = districts_of(sites, cells, of_cell, nearest)
    demand = _demand(keys, seed, library, nearest, nodes, sites, districts)
    channels = _channels(keys, seed, path, places, node_position, track, antennas)
    estimate, error, true, gain = channels
    if places is not None and isinstance(keys.nodes.areas, int):  # areas stay where they are
        home = track_for(None)
        gain = _channels(keys, seed, None, None, node_position, home, antennas)[3]
    return Instance(
        library=library,
        network=network_of(keys, seed, library, node_position, sites),
        demand=demand,
        requests=(
            sample(demand, rng_of(keys, seed, "requests", path))
            if keys.demand.trace is None
            else _trace(keys, library, users)
        ),
        channel_estimate=estimate,
        channel_error=error,
        channel_true=true,
        delivery=keys.delivery,
        schedule=keys.schedule,
        user_position=user_position,
        deadline=_deadline(keys, library),
        name=keys.name,
        seed=seed,
        areas=areas_of_nodes(keys, gain, node_position, sites),
        user_track=track if len(track) == keys.slots and (track != track[:1]).any() else None,
    )


def replay_of(keys: ScenarioKeys, seed: int = 0) -> Replay | None:
    """Return what becomes of the lines of a trace with time stamps; None without one."""
    if keys.demand.replay is None:
        return None
    _, of_cell = cells_of(keys, sites_of(keys))
    users = keys.users.count if of_cell is None else len(of_cell)
    return _replay(keys, _library(keys, seed), users)


def _replay(keys: ScenarioKeys, library: ModelLibrary, users: int) -> Replay:
    given = cast(ReplaySection, keys.demand.replay)
    return read_replay(
        beside(keys, str(keys.demand.trace)),
        keys.slots,
        users,
        library.model_names,
        slot_s=given.slot_s,
        start_s=given.start_s,
        models=given.models,
        who=given.users,
        columns=given.columns,
        answered=given.answered,
    )


def _trace(keys: ScenarioKeys, library: ModelLibrary, users: int) -> IntArray:
    """Return (T, K) models that the trace asks for."""
    if keys.demand.replay is not None:
        return _replay(keys, library, users).requests
    return read_trace(
        beside(keys, str(keys.demand.trace)),
        keys.slots,
        users,
        library.models,
        model_names=library.model_names,
    )


def _demand(
    keys: ScenarioKeys,
    seed: int,
    library: ModelLibrary,
    nearest: IntArray,
    nodes: int,
    sites: Sites | None,
    districts: tuple[tuple[str, ...], IntArray],
) -> Demand:
    """Return the demand model: of the file, or drawn.

    nearest is (K,), every user's node; districts are names, and (K,) every user's.
    """
    if keys.demand.file is not None:
        weight, column = read_weights(
            beside(keys, keys.demand.file),
            () if sites is None else sites.names,
            library.model_names,
            library.models,
            districts[0],
        )
        share = weight / weight.sum(axis=1, keepdims=True)
        of_all = np.zeros_like(nearest)
        of_user = share[{"site": nearest, "district": districts[1]}.get(column, of_all)]
        return Demand(
            np.broadcast_to(of_user, (keys.slots, *of_user.shape)),
            keys.demand.persistence,
            np.full(len(nearest), keys.demand.activity),
        )
    by_node = keys.demand.taste_areas == "node"
    return draw_demand(
        rng_of(keys, seed, "tastes"),
        slots=keys.slots,
        users=len(nearest),
        models=library.models,
        zipf=keys.demand.zipf,
        tastes=keys.demand.tastes,
        drift=keys.demand.drift,
        period=keys.demand.period,
        persistence=keys.demand.persistence,
        activity=keys.demand.activity,
        area=nearest if by_node else None,
        areas=nodes if keys.nested and by_node else None,
    )


def _deadline(keys: ScenarioKeys, library: ModelLibrary) -> FloatArray:
    """Return (M,) seconds, infinite for models without a deadline; empty where none has one."""
    given = keys.demand.deadline_s
    if given is None:
        return np.zeros(0)
    if not isinstance(given, dict):
        return np.full(library.models, given)
    for family in given:
        if family not in library.model_family:
            known = sorted(set(filter(None, library.model_family)))
            raise ValueError(
                f"demand.deadline_s: family {family!r} is not in the library; "
                f"{hint(family, known) if known else 'it has no families'}"
            )
    return np.array([given.get(family, np.inf) for family in library.model_family])


def _refuse_too_large(
    keys: ScenarioKeys, library: ModelLibrary, nodes: int, users: int, antennas: int
) -> None:
    """Refuse an instance that takes too much memory, before any of its arrays is made."""
    slots = keys.slots
    of_slots = f"slots = {slots}, users.count = {users}"
    # Estimates: three arrays of complex channels, two of preferences, one of who needs what.
    estimates = {
        f"{of_slots}, nodes.count = {nodes}, nodes.antennas = {antennas}": (
            3 * 16 * slots * users * nodes * antennas
        ),
        f"{of_slots}, library of {library.models} models": 16 * slots * users * library.models,
        f"{of_slots}, library of {library.blocks} blocks": slots * users * library.blocks,
        f"nodes.count = {nodes}": 3 * 8 * nodes**2,
    }
    what = max(estimates, key=lambda name: estimates[name])
    if sum(estimates.values()) > LARGEST_INSTANCE_BYTES:
        raise ValueError(
            f"{what}: would take {estimates[what]} bytes, an instance may take at most "
            f"{LARGEST_INSTANCE_BYTES}"
        )


def _library(keys: ScenarioKeys, seed: int) -> ModelLibrary:
    if keys.library.synthetic:
        return synthetic_library(generator(seed, "library"), **keys.library.synthetic.model_dump())
    if keys.library.file:
        return read_library(find(keys.library.file, "library", folder=keys._path.parent))
    return combine([build_family(_family_spec(family)) for family in keys.library.families])


def _channels(
    keys: ScenarioKeys,
    seed: int,
    path: int | None,
    places: int | None,
    node_position: FloatArray,
    track: FloatArray,
    antennas: IntArray,
) -> tuple[Any, FloatArray, Any, FloatArray]:
    """Return estimates, error radii, true channels, and (K, N) mean power gains of links."""
    if keys.channel.file is not None:
        shape = (keys.slots, track.shape[1], len(node_position), int(antennas.max()))
        estimate = read_channels(beside(keys, keys.channel.file), shape)
        error = keys.channel.error * np.linalg.norm(estimate, axis=3)
        rng = rng_of(keys, seed, "csi error", path)
        gain = np.mean(np.linalg.norm(estimate, axis=3) ** 2, axis=0)
        present = present_antennas(antennas.tolist(), len(node_position))
        if estimate[..., ~present].any():
            raise ValueError(
                f"channel.file: {keys.channel.file!r} has channels of antennas that "
                "nodes.antennas does not have, must be zero"
            )
        return estimate, error, draw_true_channel(rng, estimate, error, present), gain
    channels = draw_channels(
        node_position,
        track if len(track) == keys.slots else track[0],
        large_scale_rng=rng_of(keys, seed, "large scale", places),
        fading_rng=rng_of(keys, seed, "fading", path),
        error_rng=rng_of(keys, seed, "csi error", path),
        slots=keys.slots,
        antennas=antennas.tolist(),
        carrier_ghz=keys.radio.carrier_ghz,
        environment=keys.channel.environment,
        los=keys.channel.los,
        correlation=keys.channel.correlation,
        error=keys.channel.error,
    )
    gain = db_to_linear(channels.gain_db)
    gain = gain if gain.ndim == 2 else gain.mean(axis=0)
    return channels.estimate, channels.error, channels.true, gain


def _family_spec(family: FamilySection) -> FamilySpec:
    given = family.model_dump(exclude_none=True)
    if isinstance(given.get("freeze_ratio"), list):
        given["freeze_ratio"] = tuple(given["freeze_ratio"])
    return FamilySpec(**given)
