"""Training in one call: the run that the command line makes, and a policy to be played."""

from __future__ import annotations

import pytest
import torch
from repository import TINY_SLOTS

import finecast
from finecast.learners.runs.checkpoints import read_checkpoint, states
from finecast.learners.runs.config import run_config
from finecast.learners.runs.training import train as train_run

SHORT = {
    "held_out": 2,
    "validate_every": 2,
    "source": {"draws": 4, "price_steps": 4},
    "options": {"width": 8, "embedding": 4, "batch": 2},
}


def test_one_call_is_the_run_of_its_table(tmp_path):
    """The same tensors as by a table of options, and the folder is a checkpoint of `policy`."""
    trained = finecast.train(TINY_SLOTS, "vdn", folder=tmp_path / "call", steps=2, seed=3, **SHORT)
    table = {"learner": "vdn", "scenarios": [str(TINY_SLOTS)], "steps": 2, "seed": 3, **SHORT}
    train_run(run_config(table), tmp_path / "table")
    called, tabled = (
        read_checkpoint(states(tmp_path / name)[-1]).tensors for name in ("call", "table")
    )
    assert called.keys() == tabled.keys()
    assert all(torch.equal(called[name], tabled[name]) for name in called)
    assert (trained.steps, trained.ended, trained.folder) == (2, "completed", tmp_path / "call")
    assert trained.best == read_checkpoint(tmp_path / "call" / "policy.json").metrics
    instance = finecast.read_scenario(TINY_SLOTS).generate(2_000_000)
    result = finecast.solve(instance, "policy", checkpoint=trained.checkpoint)
    assert result.evaluation.feasible


def test_two_processes_make_the_draws_of_the_same_run(tmp_path):
    """The same tensors to the bit, and the same held-out figures; what is no engine is refused."""
    short = {"held_out": 3, "source": {"draws": 12, "price_steps": 4}, "options": SHORT["options"]}
    ends = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        trained = finecast.train(
            TINY_SLOTS, "vdn", folder=folder, steps=3, workers=workers, **short
        )
        ends.append((read_checkpoint(states(folder)[-1]).tensors, trained.best))
    (alone, best), (shared, same) = ends
    assert best == same
    assert all(torch.equal(alone[name], shared[name]) for name in alone)
    for wrong, says in (
        ({"workers": 0}, "workers: 0 is not allowed"),
        ({"engine": "spark"}, "engine: 'spark' is not allowed"),
        ({"engine": "dask"}, "scheduler: none is given"),
    ):
        with pytest.raises(ValueError, match=says):
            finecast.train(TINY_SLOTS, "vdn", folder=tmp_path / "no", **wrong)
    assert not (tmp_path / "no").exists()


def test_it_goes_on_and_tells_how_it_stands(tmp_path):
    """Two steps, then two more with `resume`; the callback receives every step that is made.

    The first one twice: when it is made, and when the policy before it is measured.
    """
    told = []
    for steps, resume in ((2, False), (4, True)):
        finecast.train(
            [str(TINY_SLOTS)],
            "vdn",
            folder=tmp_path,
            steps=steps,
            resume=resume,
            callback=lambda progress: told.append((progress.stage, progress.done)),
            **SHORT,
        )
    assert [done for stage, done in told if stage == "training vdn"] == [1, 1, 2, 3, 4]


def test_mistakes_in_one_line(tmp_path):
    """An option of the learner is not one of the run; the nearest name is suggested."""
    with pytest.raises(ValueError, match="run: 'step' is unknown; did you mean 'steps'"):
        finecast.train("tiny", folder=tmp_path, step=3)
    with pytest.raises(ValueError, match="learner: 'maasn' is unknown; did you mean 'maasn-da'"):
        finecast.train("tiny", "maasn", folder=tmp_path)
    assert not list(tmp_path.iterdir())
