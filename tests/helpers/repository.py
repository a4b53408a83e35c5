"""Where the checkout and its data are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
SCENARIOS = DATA / "scenarios"
TINY = SCENARIOS / "tiny.toml"
TINY_SLOTS = Path(__file__).parent / "tiny-slots.toml"
