"""Old names of options: read for one release, with a note, and they mean the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import DATA, TINY_SLOTS

from finecast.learners.policy import load_policy
from finecast.learners.runs.checkpoints import read_checkpoint, states
from finecast.learners.runs.config import run_config
from finecast.learners.runs.training import train

PPO = ({"clip": 0.3, "gradient": 5.0, "trace": 0.7}, "ratio_clip gradient_clip gae_lambda")
SETS = ({"rate": 2e-3, "clip": 5.0}, "critic_rate gradient_clip")
HINDSIGHT = (
    {"mpc": False, "learning_rate": 2e-3, "final_learning_rate": 1e-5, "averaging": 0.95},
    "lookahead actor_rate final_actor_rate average_rate",
)
OLD = {
    "maasn-da": ({"clip": 5.0}, "gradient_clip"),
    "hindsight": HINDSIGHT,
    "mappo": PPO,
    "ippo": PPO,
    "qmix": SETS,
    "vdn": SETS,
    "dcg": SETS,
}
"""By learner: options by their old names, and the new names in the same order."""


@pytest.mark.parametrize("learner", OLD)
def test_an_old_table_is_the_same_run(learner):
    """Under old and new names the learner gets equal options, and every old name is noted."""
    old, names = OLD[learner]
    new = dict(zip(names.split(), old.values(), strict=True))
    if learner == "hindsight":
        new["average_rate"] = 0.05  # 0.95 of the average stayed, so 0.05 enters
    table = {"learner": learner, "scenarios": ["x.toml"]}
    with pytest.warns(FutureWarning) as notes:
        before = run_config({**table, "options": old})
    after = run_config({**table, "options": new})
    assert before == after
    assert before.learner_options == after.learner_options
    assert [str(note.message) for note in notes] == [
        f"options: {a!r} is now {b!r}; the old name goes in the next release"
        for a, b in zip(old, names.split(), strict=True)
    ]


def test_one_option_under_both_names_is_refused():
    """Which of the two values is meant cannot be known."""
    table = {"learner": "mappo", "scenarios": ["x.toml"]}
    with pytest.raises(ValueError, match="'trace' is the old name of 'gae_lambda'"):
        run_config({**table, "options": {"trace": 0.5, "gae_lambda": 0.5}})


def with_old_names(header: Path) -> None:
    """Write the options of a checkpoint of hindsight as they were called before."""
    content = json.loads(header.read_text())
    old = {"lookahead": "mpc", "actor_rate": "learning_rate"}
    old["final_actor_rate"] = "final_learning_rate"
    for part in (content, content["run"]):
        part["options"] = {old.get(k, k): value for k, value in part["options"].items()}
        if "average_rate" in part["options"]:
            part["options"]["averaging"] = 1.0 - part["options"].pop("average_rate")
    header.write_text(json.dumps(content))


def test_an_old_checkpoint_is_the_same_policy(tmp_path):
    """The shipped policy of hindsight, with a header as it was before the names changed."""
    shipped = DATA / "checkpoints" / "hindsight"
    shutil.copytree(shipped, tmp_path / "old")
    with_old_names(tmp_path / "old" / "policy.json")
    assert '"averaging": 0.99' in (tmp_path / "old" / "policy.json").read_text()
    with pytest.warns(FutureWarning) as notes:
        old, old_header = load_policy(tmp_path / "old")
    path = tmp_path / "old" / "policy.json"
    assert f"{path}: options: 'mpc' is now 'lookahead'" in " ".join(str(n.message) for n in notes)
    new, header = load_policy(shipped)
    assert old_header.options == header.options
    assert old_header.run == header.run
    assert (old.rounds, old.observer.lookahead) == (new.rounds, new.observer.lookahead)


def test_a_run_with_old_names_goes_on(tmp_path):
    """A state that was written under old names, and a table that still has them."""
    options = {"width": 8, "embedding": 4, "draws": 2, "mpc": False}
    table = {"learner": "hindsight", "scenarios": [str(TINY_SLOTS)], "held_out": 2}
    table["source"] = {"draws": 4, "price_steps": 4}
    with pytest.warns(FutureWarning):
        run = run_config({**table, "steps": 1, "options": options})
    train(run, tmp_path)
    with_old_names(states(tmp_path)[-1])
    with pytest.warns(FutureWarning):
        run = run_config({**table, "steps": 2, "options": options})
    with pytest.warns(FutureWarning):
        assert train(run, tmp_path, resume=True).steps == 2
    assert read_checkpoint(states(tmp_path)[-1]).run["options"]["lookahead"] is False


def test_the_command_line_notes_it_in_one_line(tmp_path):
    """No source line of ours: what is old, what is new, and until when."""
    command = [sys.executable, "-c", "from finecast.cli.main import main; main()", "train"]
    given = [str(TINY_SLOTS), "--learner", "maasn-da", "--set", "options.clip=0"]
    ended = subprocess.run(
        [*command, *given, "-o", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines() == [
        "finecast: note: options: 'clip' is now 'gradient_clip'; "
        "the old name goes in the next release",
        "finecast: error: gradient_clip: 0.0 is not allowed, must be >= 1e-06 and <= 1000000000",
    ]
