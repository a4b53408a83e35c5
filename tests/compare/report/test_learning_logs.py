"""Logs of training, read, and their charts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finecast.compare.report.learning import Learning, learning_figures, read_learning
from finecast.problem.files import FormatError


def test_learning_logs(tmp_path: Path):
    """Lines without a metric are passed over; a log without any is refused by name."""
    log = tmp_path / "policy.jsonl"
    log.write_text('{"step": 0, "loss": 1}\n{"step": 10, "delay": 5.0}\n{"step": 20, "delay": 4}\n')
    curve = read_learning(log)
    assert (curve.label, curve.metric) == ("policy", "delay")
    assert (curve.step.tolist(), curve.value.tolist()) == ([10, 20], [5, 4])
    log.write_text('{"step": 1}\n')
    with pytest.raises(FormatError, match=r"policy\.jsonl: no line with a step"):
        read_learning(log)
    log.write_text("{")
    with pytest.raises(FormatError, match="line 1 is not valid JSON"):
        read_learning(log)


def test_logs_of_our_own_training(tmp_path: Path):
    """`finecast train` writes DIR/log.jsonl: the curve has the name of the folder and the gap."""
    log = tmp_path / "vdn" / "log.jsonl"
    log.parent.mkdir()
    rows = [{"step": 0, "held_out_gap": 0.08, "held_out_delay": 5.0}, {"step": 5, "delay": 1.0}]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    curve = read_learning(log)
    assert (curve.label, curve.metric, list(curve.value)) == ("vdn", "held_out_gap", [0.08])


def test_learning_charts_have_units():
    """The gap in per cent, times in seconds."""
    steps = np.array([0.0, 10.0])
    drawn = learning_figures(
        [
            Learning("a", "held_out_gap", steps, np.array([0.3, 0.1])),
            Learning("b", "delay", steps, np.array([5.0, 4.0])),
        ]
    )
    assert ">30%<" in drawn
    assert "Delay in s during training" in drawn
    assert "steps of training" in drawn
