"""Evaluation draws of the learners' benchmark: fresh seeds, true rates, certified bounds.

No learner trains on them. Training seeds are below 1,000,000, and held-out seeds below 2,000,000.
Draws from 2,000,000 on were used while the learners were built. The draws of this benchmark were
not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from finecast.learners.world.draws import episodes_of
from finecast.learners.world.episodes import EPISODE_TENSORS, Episodes, joined_episodes
from finecast.problem.instance import Instance
from finecast.problem.scenario import read_scenario

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ROOT / "data" / "scenarios"

FIRST_SEED = 3_000_000
"""Seed of the first evaluation draw."""

HORIZON = 19
"""Coming slots in the stored tables. They reach to the end of 20 slots."""

COMING = ("need", "air", "worth", "audience")
"""Tables with an axis of coming slots."""


def scenario_file(name: str) -> Path:
    """Return the shipped file of a scenario."""
    learning = SCENARIOS / "learning" / f"{name}.toml"
    return learning if learning.exists() else SCENARIOS / f"{name}.toml"


@dataclass(frozen=True)
class DrawClass:
    """A class of draws.

    Attributes
    ----------
    name
        Name of the scenario file, without its ending.
    draws
        Number of draws that are evaluated.
    """

    name: str
    draws: int

    def instance(self, draw: int) -> Instance:
        """Return a draw's instance."""
        return read_scenario(scenario_file(self.name)).generate(FIRST_SEED + draw)

    def file(self, folder: Path, draw: int) -> Path:
        """Return the file of a draw's episode."""
        return folder / "draws" / f"{self.name}-{FIRST_SEED + draw}.safetensors"


CLASSES = {
    kind.name: kind
    for kind in (
        DrawClass("persist-60", 64),
        DrawClass("slow-60", 64),
        DrawClass("slow-200", 16),
        DrawClass("slow-six-60", 16),
    )
}


def prepare(folder: Path, names: list[str], most: int | None = None) -> Iterator[str]:
    """Make the episodes that are not there yet, and yield the name of each new file."""
    (folder / "draws").mkdir(parents=True, exist_ok=True)
    for name in names:
        kind = CLASSES[name]
        for draw in range(kind.draws if most is None else min(most, kind.draws)):
            file = kind.file(folder, draw)
            if not file.exists():
                write_episode(file, episodes_of([kind.instance(draw)], horizon=HORIZON))
                yield file.name


def write_episode(file: Path, episode: Episodes) -> None:
    """Write an episode. A write that is cut off leaves no file of this name."""
    part = file.with_suffix(".part")
    save_file({name: getattr(episode, name).contiguous() for name in EPISODE_TENSORS}, part)
    part.rename(file)


def prepared(folder: Path, name: str, horizon: int, most: int | None = None) -> Episodes:
    """Return the prepared draws of a class, up to the first one that is missing.

    Parameters
    ----------
    folder
        Folder that `prepare` filled.
    name
        Name of the class.
    horizon
        Coming slots to keep of the expected tables.
    most
        Largest number of draws.
    """
    parts = []
    for draw in range(CLASSES[name].draws if most is None else most):
        file = CLASSES[name].file(folder, draw)
        if not file.exists():
            break
        episode = Episodes(**load_file(file))
        cut = {key: getattr(episode, key)[:, :, :horizon].contiguous() for key in COMING}
        parts.append(replace(episode, **cut))
    return joined_episodes(parts)
