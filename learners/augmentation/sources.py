"""Where synthetic episodes may come from, by name."""

from __future__ import annotations

from typing import Literal

Source = Literal["none", "noise", "last-value", "echo-state", "world-model", "oracle"]

SOURCES: tuple[Source, ...] = (
    "none",
    "noise",
    "last-value",
    "echo-state",
    "world-model",
    "oracle",
)
