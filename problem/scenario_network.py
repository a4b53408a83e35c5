"""The network of a scenario: sites, links, storage and users' places, from its keys and files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.areas import areas_of_lists, partition
from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.library import ModelLibrary
from finecast.problem.motion import Area, random_waypoint, read_tracks
from finecast.problem.nested import NestedGenerator
from finecast.problem.network import (
    Network,
    dbm_to_w,
    drop_users,
    drop_users_nested,
    hexagonal_positions,
    square_positions,
    thermal_noise_w,
)
from finecast.problem.scenario_keys import ScenarioKeys
from finecast.problem.site_tables import read_links
from finecast.problem.sites import DISTRICT, Sites, read_sites
from finecast.problem.user_cells import UserCells, drop_in_cells, read_user_cells, shared_out


def count_nodes(keys: ScenarioKeys) -> int:
    """Return N, the number of nodes: `nodes.count`, or the number of sites in `nodes.file`.

    Raises
    ------
    FormatError
        The file of the sites is bad.
    """
    sites = sites_of(keys)
    return keys.nodes.count if sites is None else len(sites.names)


def beside(keys: ScenarioKeys, name: str) -> Path:
    """Return the path of a file that a scenario names: a relative one starts beside it."""
    return keys._path.parent / name


def rng_of(
    keys: ScenarioKeys, seed: int, part: str, number: int | None = None
) -> np.random.Generator:
    """Return what draws a part: `random`, `standard_normal` and `uniform` by shape."""
    if keys.nested:
        return cast(np.random.Generator, NestedGenerator(seed, part, number))
    return generator(seed, part, number)


def sites_of(keys: ScenarioKeys) -> Sites | None:
    """Return the sites in `nodes.file`, None without one."""
    return None if keys.nodes.file is None else read_sites(beside(keys, keys.nodes.file))


def cells_of(keys: ScenarioKeys, sites: Sites | None) -> tuple[UserCells | None, IntArray | None]:
    """Return the cells in `users.file` and the cell of every user (K,); None without a file."""
    if keys.users.file is None:
        return None, None
    if sites is None:
        raise ValueError("users.file: needs sites with names, give 'nodes.file' too")
    cells = read_user_cells(beside(keys, keys.users.file), sites)
    given = keys.users.count if "count" in keys.users.model_fields_set else None
    return cells, shared_out(cells, given)


def districts_of(
    sites: Sites | None,
    cells: UserCells | None,
    of_cell: IntArray | None,
    nearest: IntArray,
) -> tuple[tuple[str, ...], IntArray]:
    """Return the names of all districts, and that of every user (K,) as an index, -1 for none.

    It is that of the user's cell, where the file of the users says it, else that of the nearest
    site. nearest is (K,), every user's site.
    """
    of_sites = () if sites is None or sites.district is None else sites.district
    of_cells = () if cells is None or cells.district is None else cells.district
    names = tuple(dict.fromkeys([*of_sites, *of_cells]))
    if of_cells and of_cell is not None:
        named = [of_cells[c] for c in of_cell]
    elif of_sites:
        named = [of_sites[n] for n in nearest]
    else:
        return (), np.full(len(nearest), -1)
    return names, np.array([names.index(name) for name in named], dtype=np.int64)


def antennas_of(keys: ScenarioKeys, sites: Sites | None) -> IntArray:
    """Return (N,) antennas of every node, of the key or else of the file."""
    given: int | list[int] = keys.nodes.antennas
    if sites is not None and "antennas" not in keys.nodes.model_fields_set:
        given = given if sites.antennas is None else sites.antennas.tolist()
    nodes = keys.nodes.count if sites is None else len(sites.names)
    return _for_each("nodes.antennas", given, nodes).astype(np.int64)


def node_positions(keys: ScenarioKeys) -> FloatArray:
    if keys.nodes.positions_m is not None:
        return np.array(keys.nodes.positions_m, dtype=np.float64)
    lay_out = hexagonal_positions if keys.nodes.layout == "hexagonal" else square_positions
    position = lay_out(keys.nodes.count, keys.nodes.inter_site_distance_m)
    if not keys.nested:
        return position
    # A layout is centred: with the first node in the middle, to the micrometre, nodes that come
    # move no other.
    return np.asarray(np.round(position - position[0], 6))


def user_tracks(
    keys: ScenarioKeys,
    seed: int,
    places: int | None,
    node_position: FloatArray,
    users: int,
    cells: UserCells | None,
    of_cell: IntArray | None,
) -> FloatArray:
    """Return (S, K, 2) m, where users are: S = T, or S = 1 where all stay."""
    motion = keys.users.motion
    if motion is not None and motion.file is not None:
        area = None if motion.area_m is None else cast(Area, tuple(motion.area_m))
        return read_tracks(beside(keys, motion.file), keys.slots, users, area)
    start = user_positions(keys, seed, places, node_position, users, cells, of_cell)
    if motion is None:
        return start[None]

    def waypoint(leg: int) -> FloatArray:
        rng = rng_of(keys, seed, f"waypoint {leg}", places)
        if motion.area_m is None:
            return _drop(keys, rng, node_position, users)
        low, high = np.array(motion.area_m[:2]), np.array(motion.area_m[2:])
        return np.asarray(low + (high - low) * rng.random(start.shape))

    return random_waypoint(
        start,
        keys.slots,
        motion.slot_s,
        motion.speeds,
        motion.pause_s,
        waypoint,
        lambda leg: rng_of(keys, seed, f"speed of leg {leg}", places).random(len(start)),
    )


def _drop(
    keys: ScenarioKeys, rng: np.random.Generator, node_position: FloatArray, users: int
) -> FloatArray:
    """Return (K, 2) m, uniform over the cells of the nodes."""
    return (drop_users_nested if keys.nested else drop_users)(
        rng,
        node_position,
        users,
        cell_radius_m=_cell_radius(keys, node_position),
        min_distance_m=keys.users.min_distance_m,
    )


def _cell_radius(keys: ScenarioKeys, node_position: FloatArray) -> float:
    """Return the radius of a node's cell, m."""
    if keys.users.cell_radius_m is not None:
        return keys.users.cell_radius_m
    if keys.nodes.file is None:
        return float(keys.nodes.inter_site_distance_m / np.sqrt(3.0))
    return float(_usual_distance(node_position) / np.sqrt(3.0))


def user_positions(
    keys: ScenarioKeys,
    seed: int,
    places: int | None,
    node_position: FloatArray,
    users: int,
    cells: UserCells | None,
    of_cell: IntArray | None,
) -> FloatArray:
    """Return (K, 2) m: as given, within some node's cell, or each within its cell of the file."""
    if keys.users.positions_m is not None:
        return np.array(keys.users.positions_m, dtype=np.float64)

    def drop(rng: np.random.Generator) -> FloatArray:
        if cells is not None and of_cell is not None:
            return drop_in_cells(
                rng,
                node_position,
                cells,
                of_cell,
                site_radius_m=_cell_radius(keys, node_position),
                map_radius_m=keys.users.cell_radius_m,
                min_distance_m=keys.users.min_distance_m,
            )
        return _drop(keys, rng, node_position, users)

    position = drop(rng_of(keys, seed, "users"))
    if places is None:
        return position
    rng = rng_of(keys, seed, "users", places)
    if keys.demand.taste_areas == "user" and keys.demand.file is None:
        return drop(rng)
    # Given every user's node, by rejection: users are independent of one another.
    home, left = nearest_nodes(position, node_position), np.arange(users)
    while left.size:
        again = drop(rng)
        hit = left[nearest_nodes(again, node_position)[left] == home[left]]
        position[hit] = again[hit]
        left = np.setdiff1d(left, hit)
    return position


def _usual_distance(node_position: FloatArray) -> float:
    """Return the median over nodes of the distance to the nearest other one, m; of one node 200."""
    if len(node_position) == 1:
        return 200.0
    apart = np.linalg.norm(node_position[:, None] - node_position, axis=2)
    np.fill_diagonal(apart, np.inf)
    return float(np.median(apart.min(axis=1)))


def network_of(
    keys: ScenarioKeys,
    seed: int,
    library: ModelLibrary,
    node_position: FloatArray,
    sites: Sites | None,
) -> Network:
    nodes = len(node_position)
    bandwidth = keys.radio.bandwidth_mhz * 1e6
    backhaul_gbps, cloud_gbps = _links(keys, seed, node_position, sites)
    return Network(
        storage=np.round(_storage(keys, library, nodes, sites)).astype(np.int64),
        power=_power(keys, nodes, sites),
        backhaul_rate=1e9 * backhaul_gbps,
        cloud_rate=1e9 * cloud_gbps,
        bandwidth=bandwidth,
        noise_power=thermal_noise_w(bandwidth, keys.radio.noise_figure_db),
        max_spectral_efficiency=keys.radio.max_spectral_efficiency or np.inf,
        node_position=node_position,
        node_names=() if sites is None else sites.names,
    )


def _storage(
    keys: ScenarioKeys, library: ModelLibrary, nodes: int, sites: Sites | None
) -> FloatArray:
    """Return (N,) byte: of the keys, else of the file, else 4 GB each."""
    given = keys.nodes
    if given.storage_share is not None:
        return np.full(nodes, given.storage_share * float(library.block_size.sum()))
    if given.storage_gb is not None:
        return _for_each("nodes.storage_gb", given.storage_gb, nodes) * 1e9
    if sites is not None and sites.storage_gb is not None:
        return sites.storage_gb * 1e9
    return np.full(nodes, 4e9)


def _power(keys: ScenarioKeys, nodes: int, sites: Sites | None) -> FloatArray:
    """Return (N,) W: of the keys, else of the file, else 30 dBm each."""
    given = keys.nodes
    if given.power_w is not None:
        return _for_each("nodes.power_w", given.power_w, nodes)
    if sites is not None and sites.power_w is not None and (
        "power_dbm" not in given.model_fields_set
    ):  # fmt: skip
        return sites.power_w
    return _for_each("nodes.power_dbm", dbm_to_w(given.power_dbm), nodes)


def _for_each(key: str, given: ArrayLike, nodes: int) -> FloatArray:
    """Return (N,) numbers of one for all nodes, or of one for each."""
    number = np.asarray(given, dtype=np.float64)
    if number.ndim and len(number) != nodes:
        raise ValueError(f"{key} has {len(number)} entries, there are {nodes} sites")
    return np.broadcast_to(number, (nodes,)).copy()


def _links(
    keys: ScenarioKeys, seed: int, node_position: FloatArray, sites: Sites | None
) -> tuple[FloatArray, FloatArray]:
    """Return Gbit/s between nodes (N, N) and from the cloud (N,)."""
    nodes = len(node_position)
    rng = rng_of(keys, seed, "links")
    if keys.links.file is None and keys.links.distance_gbps is None:
        backhaul = _draw(rng, keys.links.backhaul_gbps, (nodes, nodes))
        return backhaul, _draw(rng, keys.links.cloud_gbps, (nodes,))
    cloud = _draw(rng, keys.links.cloud_gbps, (nodes,))
    if keys.links.file is not None:
        if sites is None:
            raise ValueError("links.file: needs sites with names, give 'nodes.file' too")
        backhaul, of_cloud = read_links(beside(keys, keys.links.file), sites.names)
        return backhaul, np.where(np.isnan(of_cloud), cloud, of_cloud)
    # The rate of the first distance that reaches; none beyond the last.
    steps = np.array(keys.links.distance_gbps, dtype=np.float64)
    apart = np.linalg.norm(node_position[:, None] - node_position, axis=2)
    step = np.searchsorted(steps[:, 0], apart)
    return np.append(steps[:, 1], 0.0)[step], cloud


def areas_of_nodes(
    keys: ScenarioKeys, gain: FloatArray, node_position: FloatArray, sites: Sites | None
) -> IntArray:
    """Return (N,) the area of every node; gain is (K, N), the power gain of each link."""
    areas = keys.nodes.areas
    if areas == DISTRICT:
        if sites is None or sites.district is None:
            raise ValueError(
                "nodes.areas: 'district' needs a file of sites ('nodes.file') with a column "
                "'district'"
            )
        names = list(dict.fromkeys(sites.district))
        return np.array([names.index(name) for name in sites.district], dtype=np.int64)
    if isinstance(areas, list):
        try:
            return areas_of_lists(areas, len(node_position))
        except ValueError as error:
            raise ValueError(f"nodes.areas: {error}") from None
    if isinstance(areas, int):
        return partition(gain, node_position, areas)
    return np.zeros(len(node_position), dtype=np.int64)


def nearest_nodes(user_position: FloatArray, node_position: FloatArray) -> IntArray:
    apart = np.linalg.norm(user_position[:, None] - node_position, axis=2)
    return np.asarray(apart.argmin(axis=1))


def generator(seed: int, part: str, number: int | None = None) -> np.random.Generator:
    entropy = [seed, zlib.crc32(part.encode())]
    if number is not None:
        entropy.append(number + 1)  # zeros at the end count as nothing: path 0 would be no path
    return np.random.default_rng(np.random.SeedSequence(entropy))


def _draw(
    rng: np.random.Generator, span: float | list[float], shape: tuple[int, ...]
) -> FloatArray:
    low, high = span if isinstance(span, list) else (span, span)
    if low > high:
        raise ValueError(f"links: [{low}, {high}] is not allowed, must be [low, high]")
    return rng.uniform(low, high, shape)
