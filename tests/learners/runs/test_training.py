"""Training on the tiny scenario: resume is exact, and what goes wrong is said in one line."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from interrupts import interruptible
from repository import ROOT, SCENARIOS, TINY_SLOTS

from finecast.learners.algorithms import maasn, qmix
from finecast.learners.runs import training
from finecast.learners.runs.checkpoints import read_checkpoint, states
from finecast.learners.runs.config import SourceConfig, run_config
from finecast.learners.runs.held_out import measured
from finecast.learners.runs.log import read_log
from finecast.learners.runs.source import ScenarioSource
from finecast.learners.runs.training import LossNotFiniteError, train
from finecast.learners.weights import tensors_of
from finecast.problem.files import FormatError, sole_writer
from finecast.problem.scenario import read_scenario

TINY = str(TINY_SLOTS)


def tiny(steps: int = 12, **changes):
    """A run of seconds."""
    table = {
        "learner": "maasn-da",
        "scenarios": [TINY],
        "steps": steps,
        "held_out": 2,
        "validate_every": 6,
        "checkpoint_every": 4,
        "log_every": 2,
        "source": {"draws": 4, "price_steps": 4},
        "options": {"batch": 2, "width": 8, "embedding": 4, "rows": 32, "play_every": 2},
    }
    return run_config({**table, **changes})


def final(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest state."""
    return dict(read_checkpoint(states(folder)[-1]).tensors)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def assert_same_end(first: Path, second: Path) -> None:
    """The newest states, the best policies and all rows of two runs are the same but for times."""
    assert_same(final(first), final(second))
    policies = [read_checkpoint(folder / "policy.json") for folder in (first, second)]
    assert policies[0].step == policies[1].step
    assert policies[0].metrics == policies[1].metrics
    assert_same(dict(policies[0].tensors), dict(policies[1].tensors))
    rows = [read_log(folder) for folder in (first, second)]
    for row in (*rows[0], *rows[1]):
        row.pop("train_s"), row.pop("cpu_s")
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    train(tiny(), folder)
    return folder


def test_leaves_checkpoints_and_a_log(whole):
    """The newest states are kept, the best policy is small, the log has every row."""
    assert [path.stem for path in states(whole)] == [f"state-{s:08d}" for s in (4, 8, 12)]
    policy = read_checkpoint(whole / "policy.json")
    assert all(name.startswith("policy") for name in policy.tensors)
    assert policy.train_s > 0
    rows = read_log(whole)
    assert [row["step"] for row in rows if "held_out_gap" in row] == [0, 6, 12]
    assert [row["step"] for row in rows if "critic_loss" in row] == [4, 6, 8, 10, 12]
    best = min(row["held_out_gap"] for row in rows if "held_out_gap" in row)
    assert policy.metrics["gap"] == best


def test_killed_and_resumed_is_the_same(whole, tmp_path):
    """kill -9 in a process of its own after the first states; resumed, all tensors are equal."""
    script = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(TINY_SLOTS.parent)]!r}\n"
        "import test_training as t, finecast.learners.algorithms.maasn as m, os, signal\n"
        "step = m.Learner.step\n"
        "def killed(self):\n"
        "    if self.steps == 10: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self)\n"
        "m.Learner.step = killed\n"
        f"t.train(t.tiny(), {str(tmp_path)!r})\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert states(tmp_path)[-1].stem == "state-00000008"
    train(tiny(), tmp_path, resume=True)
    assert_same_end(whole, tmp_path)


def odd(steps: int = 13, **changes):
    """A run whose states, evaluations, rows and end all fall on different steps."""
    return tiny(steps, validate_every=5, checkpoint_every=3, log_every=2, **changes)


@pytest.fixture(scope="module")
def odd_whole(tmp_path_factory) -> Path:
    """Such a run without interruption."""
    folder = tmp_path_factory.mktemp("odd")
    train(odd(), folder)
    return folder


@pytest.mark.parametrize("draw", range(4))
def test_killed_at_random_steps(odd_whole, tmp_path, draw):
    """Killed twice at any steps, between evaluations too: same weights, best policy and rows."""
    for stop in sorted(random.Random(draw).sample(range(13), 2)):
        train_until(odd(), tmp_path, stop, resume=True)
    train(odd(), tmp_path, resume=True)
    assert_same_end(odd_whole, tmp_path)


def test_killed_and_resumed_from_the_command_line(odd_whole, tmp_path):
    """The options of the command line: kill -9 at step 8, Ctrl-C at step 11, then to the end."""
    table = odd().as_dict()
    command = [TINY, "--learner", "maasn-da", "--steps", "13", "-o", str(tmp_path), "--resume"]
    for name in ("held_out", "validate_every", "checkpoint_every", "log_every"):
        command += ["--set", f"{name}={table[name]}"]
    for name in ("draws", "price_steps"):
        command += ["--set", f"source.{name}={table['source'][name]}"]
    for name, value in table["options"].items():
        command += ["--set", f"options.{name}={value}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    codes = []
    for stop, how in ((8, "SIGKILL"), (11, "SIGINT"), (99, "SIGKILL")):
        script = (
            "import os, signal, finecast.learners.algorithms.maasn as m\n"
            "real = m.Learner.step\n"
            "def step(self):\n"
            f"    if self.steps == {stop}: os.kill(os.getpid(), signal.{how})\n"
            "    return real(self)\n"
            "m.Learner.step = step\n"
            "from finecast.cli.main import main; main()\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script, "train", *command], capture_output=True, text=True,
            env=environment, preexec_fn=interruptible,
        )  # fmt: skip
        assert "Traceback" not in ended.stderr, ended.stderr
        codes.append(ended.returncode)
    assert codes == [-signal.SIGKILL, 130, 0]
    assert_same_end(odd_whole, tmp_path)


def test_one_training_at_a_time(odd_whole):
    """A folder that another training holds is refused, and left as it is."""
    with sole_writer(odd_whole, "training"), pytest.raises(FormatError, match="another training"):
        train(odd(40), odd_whole, resume=True)
    assert read_checkpoint(states(odd_whole)[-1]).step == 13


def test_leftovers_of_a_killed_write_go(odd_whole, tmp_path):
    """Half a state, and half a file: gone after the next start, whose end is the same."""
    train_until(odd(), tmp_path, 8)
    for name in ("state-00000009.safetensors", ".policy.json.abcd1234", ".log.jsonl.abcd1234"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".mine").write_text("mine")
    train(odd(), tmp_path, resume=True)
    assert_same_end(odd_whole, tmp_path)
    there = {path.name for path in odd_whole.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == there | {".mine"}


def test_ctrl_c_while_the_draws_are_bounded(tmp_path):
    """Before the first step there is nothing to keep: Ctrl-C ends the command with 130."""
    script = (
        "import signal, finecast.solvers.placement.search.lagrangian as bounds\n"
        "bounds._ascent = lambda *given: signal.raise_signal(signal.SIGINT)\n"
        "from finecast.cli.main import main; main()\n"
    )
    command = ["train", TINY, "--learner", "maasn-da", "--steps", "3", "--set", "held_out=2"]
    ended = subprocess.run(
        [sys.executable, "-c", script, *command, "-o", str(tmp_path)], capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=interruptible,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr.split() == ["finecast:", "interrupted"]
    assert states(tmp_path) == []


def test_more_steps_go_on_from_the_end(whole, tmp_path):
    """A run of 8 steps, resumed to 12, ends where one of 12 does."""
    train(tiny(8), tmp_path)
    trained = train(tiny(12), tmp_path, resume=True)
    assert trained.steps == 12
    assert_same(final(whole), final(tmp_path))


def test_seeds_differ(whole, tmp_path):
    """Another seed gives other weights."""
    train(tiny(4, seed=1), tmp_path)
    found = read_checkpoint(states(tmp_path)[-1]).tensors
    other = read_checkpoint(states(whole)[0]).tensors
    assert not torch.equal(found["policy/own.weight"], other["policy/own.weight"])


def test_a_loss_that_is_not_finite_stops(tmp_path, monkeypatch):
    """The run stops, names the last good checkpoint, and that one still reads."""
    real = maasn.Learner.step

    def broken(self):
        row = dict(real(self))
        return {**row, "critic_loss": float("nan")} if self.steps == 7 else row

    monkeypatch.setattr(maasn.Learner, "step", broken)
    with pytest.raises(LossNotFiniteError, match=r"step 7: .*state-00000004\.json") as error:
        train(tiny(), tmp_path)
    assert "\n" not in str(error.value)
    assert read_checkpoint(states(tmp_path)[-1]).step == 4


def test_draws_double_and_depend_on_the_step_alone():
    """4, 8 and 9 draws in the first steps; earlier ones stay, in whatever order pools are asked."""
    scenarios = [read_scenario(TINY)]
    config = SourceConfig(draws=9, price_steps=2)
    source, other = (ScenarioSource(scenarios, config, 0) for _ in range(2))
    pools = [source.at(step) for step in (0, 1, 2, 7)]
    assert [pool.episodes.draws for pool in pools] == [4, 8, 9, 9]
    assert [pool.number for pool in pools] == [0, 1, 2, 2]
    for step in (7, 0, 1):
        again, pool = other.at(step), source.at(step)
        assert torch.equal(again.episodes.group, pool.episodes.group)
        assert torch.equal(again.values.cost, pool.values.cost)
    assert torch.equal(pools[0].episodes.start, pools[2].episodes.start[:4])


def test_the_first_step_comes_before_the_held_out_draws(tmp_path, monkeypatch):
    """They are prepared after it; what is measured as step 0 is the policy before the step."""
    run = tiny(2, learner="vdn", options={"batch": 2, "average_rate": 1.0, "critic_rate": 0.5})
    made, steps = [], []
    real, prepare = qmix.Learner.step, training.held_out

    def step(self):
        steps.append(self.steps)
        return real(self)

    def prepared(*args, **options):
        made.append(len(steps))
        return prepare(*args, **options)

    monkeypatch.setattr(qmix.Learner, "step", step)
    monkeypatch.setattr(training, "held_out", prepared)
    train(run, tmp_path)
    assert made == [1]
    rows = {row["step"]: row for row in read_log(tmp_path) if "held_out_gap" in row}
    scenarios = [read_scenario(TINY)]
    source = ScenarioSource(scenarios, run.source, run.seed, steps=run.steps)
    learner = qmix.Learner(run.learner_options, source, seed=run.seed, device=torch.device("cpu"))
    held = prepare(scenarios, 2, horizon=3, true_rates=False, price_steps=4)
    expected = measured(learner.policy(held.values), held)
    assert rows[0]["held_out_delay"] == expected["delay"]
    # The run went on from the newer weights.
    for _ in range(2):
        learner.step()
    tensors = tensors_of(learner.parts())
    assert_same(tensors, {name: final(tmp_path)[name] for name in tensors})


def test_early_stop(tmp_path):
    """With steps of size 0 nothing gets better, and patience ends the run."""
    still = {**tiny().options, "actor_rate": 0.0, "critic_rate": 0.0}
    trained = train(tiny(40, patience=1, options=still), tmp_path)
    assert (trained.ended, trained.steps) == ("early stop", 6)


def test_folders_that_do_not_fit(whole, tmp_path):
    """A folder with a run, another run's options, fewer steps, a truncated state: one line."""
    with pytest.raises(ValueError, match="holds a run already"):
        train(tiny(), whole)
    with pytest.raises(ValueError, match="was made with seed = 0, not 1"):
        train(tiny(seed=1), whole, resume=True)
    with pytest.raises(ValueError, match="steps: 4 is not allowed"):
        train(tiny(4), whole, resume=True)
    train(tiny(4), tmp_path)
    tensors = states(tmp_path)[-1].with_suffix(".safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-9])
    with pytest.raises(FormatError, match="truncated or changed"):
        train(tiny(), tmp_path, resume=True)


def test_full_disk(tmp_path, monkeypatch):
    """A full disk ends the run in one line; the states before are whole."""
    real, written = os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 9:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FormatError, match="No space left on device"):
        train(tiny(40), tmp_path)
    monkeypatch.undo()
    for path in states(tmp_path):
        read_checkpoint(path)
    assert states(tmp_path)


@pytest.mark.parametrize("source", ["noise", "last-value", "echo-state", "world-model", "oracle"])
def test_augmented_runs_resume_too(tmp_path, source):
    """Synthetic draws are made anew after a resume, and the run ends the same."""
    given = {"draws": 5, "price_steps": 4, "augmentation": source, "refresh": 3}
    long, cut = tmp_path / "long", tmp_path / "cut"
    train(tiny(10, source=given), long)
    train_until(tiny(10, source=given), cut, stop=5)
    train(tiny(10, source=given), cut, resume=True)
    assert_same(final(long), final(cut))


def train_until(run, folder: Path, stop: int, *, resume: bool = False) -> None:
    """Train until a step and lose what came after the last state, as a killed run does."""
    real = maasn.Learner.step

    def stopped(self):
        if self.steps == stop:
            raise RuntimeError("killed")
        return real(self)

    maasn.Learner.step = stopped
    try:
        with pytest.raises(RuntimeError, match="killed"):
            train(run, folder, resume=resume)
    finally:
        maasn.Learner.step = real


@pytest.mark.parametrize(("at", "ended"), [(5, "interrupted"), (11, "completed")])
def test_ctrl_c_ends_the_loop_around(whole, tmp_path, monkeypatch, at, ended):
    """In Python Ctrl-C is raised, its state written before, also when it comes with the end."""
    real = maasn.Learner.step

    def pressed(self):
        if self.steps == at:
            signal.raise_signal(signal.SIGINT)
        return real(self)

    monkeypatch.setattr(maasn.Learner, "step", pressed)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as interrupt:
            train(tiny(), tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (interrupt.value.trained.steps, interrupt.value.trained.ended) == (at + 1, ended)
    monkeypatch.undo()
    train(tiny(), tmp_path, resume=True)
    assert_same(final(whole), final(tmp_path))


def test_scenarios_that_do_not_fit_are_named(tmp_path):
    """What the draws refuse names the scenarios that they are of."""
    one_slot, other = str(SCENARIOS / "tiny.toml"), str(SCENARIOS / "vision-small.toml")
    alone = tiny(scenarios=[one_slot])
    with pytest.raises(FormatError, match=re.escape(f"{one_slot}: slots: 1 is not allowed with")):
        train(alone, tmp_path / "a")
    both = tiny(scenarios=[TINY, other], source={"draws": 1, "augmentation": "none"})
    with pytest.raises(FormatError, match=re.escape(f"{TINY}, {other}: episodes: nodes are [")):
        train(both, tmp_path / "b")


@pytest.mark.parametrize(
    "changes", [{"scenarios": ["none-of-that-name"]}, {"scenario": {"users": {"count": 0}}}]
)
def test_a_refused_scenario_leaves_no_folder(changes, tmp_path):
    """It is read before anything is written."""
    with pytest.raises(ValueError, match=r"none-of-that-name|users\.count"):
        train(tiny(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_interrupted_from_the_command_line(tmp_path):
    """Ctrl-C: a state is written, exit code 130, and the run can go on."""
    command = [sys.executable, "-m", "finecast.cli", "train", TINY, "--learner", "maasn-da"]
    command[1:3] = ["-c", "from finecast.cli.main import main; main()"]
    settings = ["held_out=2", "source.draws=4", "source.price_steps=4", "options.batch=2"]
    for setting in settings:
        command += ["--set", setting]
    command += ["--steps", "100000", "-o", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    )
    try:
        while not states(tmp_path / "run") and running.poll() is None:
            time.sleep(0.05)
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    found = read_checkpoint(states(tmp_path / "run")[-1])
    assert 0 < found.step < 100000


def test_log_drops_a_half_written_line(whole, tmp_path):
    """What a killed run left half written is not read."""
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 2}) + '\n{"step": 4, "cri')
    assert read_log(tmp_path) == [{"step": 2}]


@pytest.mark.parametrize("line", ["[" * 5000, '{"step": "2"}', '{"step": 2.5}', "x", "[2]"])
def test_log_refuses_a_line_that_is_no_row(tmp_path, line):
    """Only the last line may be half written; another one is not passed over in silence."""
    (tmp_path / "log.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(FormatError, match=r"log\.jsonl: line 2 is no row with a step"):
        read_log(tmp_path)
