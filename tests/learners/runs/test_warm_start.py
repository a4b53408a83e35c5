"""Runs that start from another run's policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from repository import TINY_SLOTS

from finecast.learners.runs.checkpoints import read_checkpoint, states
from finecast.learners.runs.config import run_config
from finecast.learners.runs.log import read_log
from finecast.learners.runs.training import _prepared, train
from finecast.learners.runs.warm_start import read_start, start_from
from finecast.learners.weights import tensors_of
from finecast.problem.files import FormatError
from finecast.solvers.workers import ALONE

TINY = str(TINY_SLOTS)
SMALL = {"width": 8, "embedding": 4}
OPTIONS = {
    "hindsight": {**SMALL, "draws": 2, "lookahead": False},
    "maasn-da": {**SMALL, "batch": 2, "rows": 32},
    "mappo": {**SMALL, "batch": 2},
    "ippo": {**SMALL, "batch": 2},
    "vdn": {**SMALL, "batch": 2, "updates": 2},
}


def tiny(learner: str, options: dict | None = None, **changes):
    """A run of a second."""
    table = {
        "learner": learner,
        "scenarios": [TINY],
        "steps": 1,
        "held_out": 2,
        "source": {"draws": 4, "price_steps": 4},
        "options": {**OPTIONS[learner], **(options or {})},
    }
    return run_config({**table, **changes})


@pytest.fixture(scope="module")
def imitator(tmp_path_factory) -> Path:
    """The newest state of a run of hindsight: its policy has learned something."""
    folder = tmp_path_factory.mktemp("imitator")
    train(tiny("hindsight", steps=3, validate_every=3), folder)
    return states(folder)[-1]


def policy_of(tensors) -> dict[str, torch.Tensor]:
    """Those of the policy."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith("policy/")}


def policy_at_start(run, folder: Path) -> dict[str, torch.Tensor]:
    """The policy at step 0, before anything was learned; a training measures the same one."""
    learner, measure = _prepared(run, None, ALONE, at_once=False)
    start_from(learner, read_start(run.warm_start, run.learner, run.learner_options))
    tensors = {k: v.clone() for k, v in tensors_of(learner.parts()).items()}
    train(run, folder)
    assert read_checkpoint(folder / "policy.json").learner == run.learner
    first = next(row for row in read_log(folder) if "held_out_delay" in row)
    assert (first["step"], first["held_out_delay"]) == (0, measure(learner)["delay"])
    return {k: v for k, v in tensors.items() if k.startswith(("policy", "actor/"))}


@pytest.mark.parametrize("learner", ["maasn-da", "mappo", "ippo"])
def test_actors_start_as_imitators(learner, imitator, tmp_path):
    """The weights at step 0 are those of the hindsight policy."""
    run = tiny(learner, warm_start=str(imitator), checkpoint_every=1)
    began = policy_at_start(run, tmp_path)
    theirs = policy_of(read_checkpoint(imitator).tensors)
    assert float(theirs["policy/alone.weight"].abs().max()) > 0
    for name, tensor in theirs.items():
        assert torch.equal(began[name], tensor)
        if learner == "maasn-da":  # the actors and their running average
            assert torch.equal(began[name.replace("policy", "actor")], tensor)


def test_goes_on_from_its_own_kind(imitator, tmp_path):
    """Fine-tuning: hindsight from hindsight, weight for weight; the same for values of sets."""
    began = policy_at_start(
        tiny("hindsight", warm_start=str(imitator), checkpoint_every=1), tmp_path / "h"
    )
    theirs = policy_of(read_checkpoint(imitator).tensors)
    assert all(torch.equal(began[name], tensor) for name, tensor in theirs.items())
    train(tiny("vdn", steps=2), tmp_path / "v")
    began = policy_at_start(
        tiny("vdn", warm_start=str(tmp_path / "v"), checkpoint_every=1), tmp_path / "w"
    )
    theirs = policy_of(read_checkpoint(tmp_path / "v" / "policy.json").tensors)
    assert all(torch.equal(began[name], tensor) for name, tensor in theirs.items())


def test_what_cannot_be_started_from_is_refused(imitator, tmp_path):
    """One line each: another learner, other tables, another width, a damaged file."""
    with pytest.raises(ValueError, match="is of 'hindsight'; 'vdn' starts from its own kind"):
        train(tiny("vdn", warm_start=str(imitator)), tmp_path / "a")
    ahead = tiny("maasn-da", {"lookahead": True}, warm_start=str(imitator))
    with pytest.raises(ValueError, match=r"lookahead = false, so options\.lookahead must be false"):
        train(ahead, tmp_path / "b")
    other = tiny("hindsight", {"lookahead": True}, warm_start=str(imitator))
    with pytest.raises(ValueError, match=r"lookahead = false, so options\.lookahead must be false"):
        train(other, tmp_path / "e")
    with pytest.raises(FormatError, match="another architecture"):
        train(tiny("maasn-da", {"width": 16}, warm_start=str(imitator)), tmp_path / "c")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    header = json.loads(imitator.read_text())
    (damaged / imitator.name).write_text(json.dumps(header))
    (damaged / header["tensors"]).write_bytes(b"short")
    with pytest.raises(FormatError, match="truncated or changed"):
        train(tiny("maasn-da", warm_start=str(damaged / imitator.name)), tmp_path / "d")
