"""Progress where stderr is no terminal: a line now and then, nothing of a short run."""

from __future__ import annotations

import time

import pytest

from finecast.cli import common
from finecast.solvers.result import Progress


def test_a_long_run_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "SPEAK_EVERY_S", 0.05)
    with common.progress_bar() as tell:
        time.sleep(0.12)
        tell(Progress("beams", 3, 8, "4 left"))
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "0 s: at work"
    assert lines[-1] == "0 s: beams 3 of 8, 4 left"
    time.sleep(0.15)
    assert capsys.readouterr().err == ""


def test_a_short_run_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress_bar() as tell:
        tell(Progress("beams", 3, 8))
    assert capsys.readouterr().err == ""
