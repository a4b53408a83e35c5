"""The plug-in of the tests of comparisons."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from probe_runs import PLUG_IN
from repository import ROOT

from finecast.solvers.registry import methods


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in with a method that hangs, dies or cheats; gives the file where it logs its runs."""
    info = tmp_path / "plugin" / "probe_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probe-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[finecast.methods]\nprobe = probe_plugin:METHOD\n")
    (tmp_path / "plugin" / "probe_plugin.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "plugin"), str(ROOT)]))
    methods.cache_clear()
    yield tmp_path / "log.txt"
    sys.modules.pop("probe_plugin", None)
    methods.cache_clear()
