"""A trained policy as an online method: feasible, for any N and J; what does not fit is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from repository import ROOT, TINY_SLOTS

from finecast.learners.policy import Learned, load_policy
from finecast.learners.runs.config import run_config
from finecast.learners.runs.held_out import FIRST_SEED
from finecast.learners.runs.training import train
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import View, packed, roll, step
from finecast.problem.evaluation import evaluate
from finecast.problem.files import FormatError
from finecast.problem.scenario import read_scenario
from finecast.solvers.solve import solve

TINY = TINY_SLOTS


def trained(folder: Path, **options) -> Path:
    """Train for a few steps; the policy is then moved away from its start."""
    run = run_config(
        {
            "learner": "maasn-da",
            "scenarios": [str(TINY)],
            "steps": 8,
            "held_out": 2,
            "validate_every": 8,
            "source": {"draws": 4, "price_steps": 4},
            "options": {"batch": 4, "actor_rate": 1e-2, "average_rate": 1.0, **options},
        }
    )
    train(run, folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """With action semantics."""
    return trained(tmp_path_factory.mktemp("semantic"))


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    """Without action semantics."""
    return trained(tmp_path_factory.mktemp("flat"), action_semantics=False)


def test_an_ordinary_online_method(checkpoint):
    """The judge finds nothing wrong, the bound lies below, training and decision time are told."""
    instance = read_scenario(TINY).generate(FIRST_SEED)
    result = solve(instance, "policy", checkpoint=str(checkpoint))
    assert result.evaluation is not None
    assert result.evaluation.feasible
    assert 0 < result.lower_bound <= result.delay < math.inf
    assert result.train_s > 0
    assert re.search(r"a decision took [\d.]+ ms a slot", " ".join(result.notes))
    assert solve(instance, "policy", checkpoint=checkpoint).delay == result.delay  # a path too


def test_keep_rules(checkpoint, tmp_path):
    """Set values keep jointly unless told not to; actors as they were trained; the note says it.

    The shipped actors are older than the option: they were trained in turn.
    """
    tiny = read_scenario(TINY).generate(FIRST_SEED)

    def notes(name, **options) -> str:
        return " ".join(solve(tiny, "policy", checkpoint=name, **options).notes)

    assert "keeps jointly" in notes("dcg")
    assert "keeps by its own rule" in notes("dcg", keep="in-turn")
    assert "keeps jointly" in notes(str(checkpoint))
    assert "keeps by its own rule" in notes(str(checkpoint), keep="in-turn")
    assert "keeps by its own rule" in notes("maasn-da", keep="joint")
    with pytest.raises(ValueError, match="keep: 'both' is not allowed"):
        notes("dcg", keep="both")


@pytest.mark.parametrize(
    ("name", "differs"), [("dcg", True), ("hindsight", True), ("maasn-da", False)]
)
def test_the_joint_rule_costs_no_more_by_the_values(name, differs):
    """By the policy's own costs of sets what is kept is never worse than what the nodes chose."""
    episodes = surrogate_episodes(
        read_scenario(ROOT / "data" / "scenarios" / "learning" / "slow-60.toml").with_(
            {"slots": 4}
        ),
        range(2),
        horizon=3,
    )
    policy, _ = load_policy(name)
    with torch.inference_mode():
        plays = [
            roll(episodes, policy, in_turn=policy.in_turn, rounds=policy.rounds, joint=joint)
            for joint in ("", "exact")
        ]
        # The first slot is the same for both: there the policy's own costs compare them.
        cached = packed(episodes.start)
        step(episodes.slot(0), episodes.start, policy, rounds=policy.rounds)
        assert torch.equal(plays[0].cache[:, 0], plays[1].cache[:, 0])
        assert torch.equal(plays[0].cache[:, 1], plays[1].cache[:, 1]) != differs
        if differs:
            view = View(episodes.slot(0), cached, cached, cached * 0, keeping=True)
            cost = policy.set_costs(view).double()
            theirs, mine = (
                cost.gather(2, packed(play.cache[:, 1])[..., None])[..., 0] for play in plays
            )
            size = episodes.size
            assert ((size * mine).sum(dim=1) <= (size * theirs).sum(dim=1) * (1 + 1e-6)).all()
    used = plays[1].cache.double() @ episodes.size[:, None, :, None]
    assert (used[..., 0] <= episodes.storage[:, None]).all()


def test_any_number_of_nodes_and_blocks(checkpoint, tmp_path):
    """Trained on 2 nodes and 6 blocks, it serves 4 nodes and the vision library."""
    text = (ROOT / "data" / "scenarios" / "persist.toml").read_text()
    text = text.replace("slots = 20", "slots = 3").replace("../libraries", f"{ROOT}/data/libraries")
    scenario = tmp_path / "large.toml"
    scenario.write_text(text)
    instance = read_scenario(scenario).generate(1)
    result = solve(instance, "policy", checkpoint=str(checkpoint))
    assert instance.blocks > 6
    assert instance.nodes == 4
    assert evaluate(instance, result.solution).feasible


def test_flat_network_serves_its_own_number_only(flat, tmp_path):
    """Another N is refused in one line that names both numbers."""
    own = read_scenario(TINY).generate(FIRST_SEED)
    assert solve(own, "policy", checkpoint=str(flat)).evaluation.feasible
    scenario = tmp_path / "three.toml"
    text = TINY.read_text().replace("count = 2", "count = 3")
    scenario.write_text(text.replace("../../data", f"{ROOT}/data"))
    other = read_scenario(scenario).generate(0)
    assert other.nodes == 3
    with pytest.raises(ValueError, match=r"nodes: 3 are not allowed.*trained on 2"):
        solve(other, "policy", checkpoint=str(flat))


def test_same_decisions_as_in_training(checkpoint):
    """A policy read from a checkpoint has the weights that were written, to the bit."""
    first, found = load_policy(checkpoint)
    second, _ = load_policy(checkpoint / "policy.json")
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name])
        assert torch.equal(tensor, found.tensors[f"policy/{name}"])
    assert Learned(first).seconds == []


@pytest.mark.parametrize("name", ["", "gone"])
def test_missing_checkpoints(name, tmp_path):
    """None named, or one that is not there: one line."""
    instance = read_scenario(TINY).generate(0)
    where = str(tmp_path / name) if name else ""
    with pytest.raises(ValueError, match="checkpoint" if not name else "no such file"):
        solve(instance, "policy", checkpoint=where)


def test_another_architecture(checkpoint, tmp_path):
    """Options that do not fit the tensors are refused in one line."""
    import json
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    header = json.loads((copy / "policy.json").read_text())
    header["options"]["width"] = 32
    (copy / "policy.json").write_text(json.dumps(header))
    with pytest.raises(FormatError, match="another architecture") as error:
        load_policy(copy)
    assert "\n" not in str(error.value)
    header["options"] = {"no_such": 1}
    (copy / "policy.json").write_text(json.dumps(header))
    with pytest.raises(FormatError, match="'no_such' is unknown"):
        load_policy(copy)
