"""A source of training episodes that never changes."""

from __future__ import annotations

from dataclasses import dataclass

from finecast.learners.world.pool import Pool


@dataclass(frozen=True)
class FixedSource:
    """The same pool for every step."""

    pool: Pool

    def at(self, step: int) -> Pool:
        """Return the pool."""
        return self.pool
