"""Scenario: what a person writes in TOML, and the instances drawn from it.

Its keys are in `finecast.problem.scenario_keys`, the drawing in `finecast.problem.scenario_draw`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from finecast.problem.instance import Instance
from finecast.problem.replay import Replay
from finecast.problem.scenario_draw import draw_instance, replay_of
from finecast.problem.scenario_keys import (
    LARGEST_DB,
    LARGEST_NUMBER,
    MOST_SEED,
    FamilySection,
    LibrarySection,
    ScenarioKeys,
)
from finecast.problem.scenario_network import count_nodes
from finecast.problem.shipped import find
from finecast.problem.toml import merged, read_model, validated
from finecast.problem.wording import hint


class Scenario(ScenarioKeys):
    """A class of instances in the words of a person; defaults for everything but the library.

    With `nested` an instance with more users, nodes, antennas or slots keeps what was there:
    positions, links, tastes, requests and channels (`finecast.problem.nested`). More nodes move
    those users to whom a new cell falls.
    """

    def with_(self, changes: Mapping[str, Any] | None = None, /, **sections: Any) -> Scenario:
        """Return the scenario with other values, checked as those of a file are.

        What is not named stays, within a section too; `library` is replaced as a whole, unless one
        of its values is named by a dotted key.

        Parameters
        ----------
        changes
            Values by key; the key of a value in a section may be dotted, as in
            `{"nodes.storage_gb": 4}`.
        **sections
            The same by keyword, as in `slots=4, users={"count": 6}`.

        Raises
        ------
        ValueError
            A key is unknown (the nearest known one is suggested), or a value is not allowed.

        Examples
        --------
        >>> tiny = read_scenario("tiny").with_({"users.count": 6}, slots=2)
        >>> tiny.users.count, tiny.slots
        (6, 2)
        """
        table = self.model_dump(exclude_unset=True)
        changes = {**(changes or {}), **sections}
        for pair in EITHER:
            if all(changes.get(key) is not None for key in pair):
                one, other = (key.rpartition(".")[2] for key in pair)
                raise ValueError(f"{pair[0]}: give either {one!r} or {other!r}")
        for key, value in changes.items():
            over = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
            table = placed(table, key, over) if "." in key else merged(table, {key: over})
        changed = validated(Scenario, table)
        changed._path = self._path
        return changed

    @property
    def file(self) -> Path:
        """The file that it was read from."""
        return self._path

    def generate(
        self, seed: int = 0, path: int | None = None, places: int | None = None
    ) -> Instance:
        """Draw an instance; the same seed and path give the same instance, bit for bit.

        Parameters
        ----------
        seed
            Non-negative integer.
        path
            Number of the path on the network of this seed, non-negative: requests, fading and
            CSI errors drawn anew, everything else the same. None for those of the seed itself,
            which is one more path.
        places
            Number of a redraw of the users' positions and their large-scale fading (line of sight,
            shadowing, K factors, arrays), non-negative; everything else of the network the same.
            Where users of one node share a taste, each stays nearest to its node, which leaves
            preferences as they are. None for those of the seed itself.

        Raises
        ------
        ValueError
            The parts do not fit together, or a file that the scenario names is bad.
        """
        return draw_instance(self, seed, path, places)

    def replayed(self, seed: int = 0) -> Replay | None:
        """Return what becomes of the lines of a trace with time stamps; None without one."""
        return replay_of(self, seed)

    @property
    def node_count(self) -> int:
        """N: `nodes.count`, or the number of sites in `nodes.file`."""
        return count_nodes(self)


EITHER = (("nodes.storage_gb", "nodes.storage_share"),)
"""Keys of which a scenario has one: a value put in the place of one drops the other."""


def placed(table: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a scenario's table with a value at a dotted key; all others stay.

    Parameters
    ----------
    table
        As in a file.
    key
        As in `nodes.storage_gb`.
    value
        What stands there. It is checked with the table, not here.

    Raises
    ------
    ValueError
        A part of the key on the way is no table.
    """
    for pair in EITHER:
        if key in pair and value is not None:
            section, other = next(name for name in pair if name != key).split(".")
            if isinstance(table.get(section), Mapping):
                kept = {name: v for name, v in table[section].items() if name != other}
                table = {**table, section: kept}
    first, _, rest = key.partition(".")
    if not rest:
        return {**table, first: value}
    inner = table.get(first, {})
    if not isinstance(inner, Mapping):
        raise ValueError(f"{key}: {first!r} has no values of its own")
    return {**table, first: placed(inner, rest, value)}


def scenario_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that change a scenario, and all others.

    Those of a scenario are `slots`, `nested` and dotted keys that begin with one of its sections,
    as in `users.count`.

    Raises
    ------
    ValueError
        A dotted key begins with nearly the name of a section, which is suggested.
    """
    sections = {
        name
        for name, field in Scenario.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    for key in settings:
        section, dot, _ = key.partition(".")
        near = hint(section, sorted(sections), alike=0.75)
        if dot and section not in sections and near.startswith("did you mean"):
            raise ValueError(f"{key!r} is unknown; {near}")
    of_scenario = {
        key: value
        for key, value in settings.items()
        if key in ("slots", "nested") or ("." in key and key.partition(".")[0] in sections)
    }
    return of_scenario, {key: v for key, v in settings.items() if key not in of_scenario}


def read_scenario(path: str | os.PathLike[str]) -> Scenario:
    """Read a scenario from a TOML file; files it names are looked up beside it.

    Parameters
    ----------
    path
        Of the file, or the name of a shipped scenario, such as "tiny".

    Raises
    ------
    FormatError
        The file is missing or not TOML, a key is unknown (the nearest known one is suggested), or
        a value is out of range.
    """
    file = find(path, "scenario")
    scenario = read_model(Scenario, file)
    scenario._path = file
    return scenario


__all__ = [
    "EITHER",
    "LARGEST_DB",
    "LARGEST_NUMBER",
    "MOST_SEED",
    "FamilySection",
    "LibrarySection",
    "Scenario",
    "ScenarioKeys",
    "placed",
    "read_scenario",
    "scenario_settings",
]
