"""PPO and values of node sets: a game of known optimum, seeds, resume, other J and N, formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fixed_source import FixedSource
from learner_scenarios import episodes
from repository import TINY_SLOTS
from two_slots import OPTIMUM, START, game, source

from finecast.learners.algorithms import ppo, qmix
from finecast.learners.algorithms.ppo_decisions import margins
from finecast.learners.algorithms.ppo_values import advantages, expected_cost
from finecast.learners.algorithms.set_values import Rows, critic_view, seen_of
from finecast.learners.learner import Learner, play
from finecast.learners.networks.observer import Observer
from finecast.learners.registry import learner_kind
from finecast.learners.runs.checkpoints import read_checkpoint, states
from finecast.learners.runs.config import run_config
from finecast.learners.runs.training import train
from finecast.learners.weights import load_tensors, tensors_of
from finecast.learners.world.baselines import Rolling
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import packed, roll
from finecast.learners.world.lookahead import lookahead_of
from finecast.learners.world.pool import Pool
from finecast.problem.scenario import read_scenario

PEERS = ("mappo", "ippo", "happo", "mat", "graph", "qmix", "vdn", "dcg")
TINY = str(TINY_SLOTS)
SMALL = {"batch": 2, "width": 8, "embedding": 4}


def started(name: str, seed: int = 0, **options: Any) -> Learner:
    """Return a learner of the game at step 0."""
    kind, device = learner_kind(name), torch.device("cpu")
    learner: Learner = kind.load().Learner(kind.config(options), source(), seed=seed, device=device)
    return learner


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def total(learner: Learner) -> float:
    """Return the total delay of the game, s."""
    return float(play(game(), learner.policy()).total)


@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [
        ("mappo", 45, {"temperature": 0.5, "actor_rate": 1e-3}),
        ("mappo", 45, {"temperature": 0.5, "actor_rate": 1e-3, "credit": "team"}),
        ("ippo", 45, {"temperature": 0.5, "actor_rate": 1e-3}),
        ("qmix", 6, {}),
        ("qmix", 6, {"lookahead": True}),
        ("vdn", 6, {}),
        ("dcg", 8, {}),
    ],
)
def test_finds_the_optimum_of_the_game(name, steps, options):
    """From what the misleading tables say, 3.3 s, to the optimum, 2.3 s."""
    learner = started(name, **options)
    assert total(learner) == pytest.approx(START)
    for _ in range(steps):
        learner.step()
    assert total(learner) == pytest.approx(OPTIMUM)


@pytest.mark.parametrize(("name", "rate"), [("happo", 2e-3), ("mat", 1e-3), ("graph", 6e-4)])
def test_comes_to_the_optimum_of_the_game(name, rate):
    """The same for smaller networks and fewer updates: within 40 steps the policy is the best."""
    smaller = {"width": 32, "embedding": 16, "minibatches": 2, "epochs": 4, "temperature": 0.5}
    learner = started(name, actor_rate=rate, **smaller)
    assert total(learner) == pytest.approx(START)
    for _ in range(40):
        learner.step()
        if total(learner) == pytest.approx(OPTIMUM):
            return
    pytest.fail("the optimum was not played")


@pytest.mark.parametrize("name", PEERS)
def test_a_seed_gives_the_same_weights_and_others_do_not(name):
    """Two runs of a seed agree in every tensor, those of another seed do not."""
    found = []
    for seed in (0, 0, 1):
        learner = started(name, seed, **SMALL)
        learner.step(), learner.step()
        found.append(tensors_of(learner.parts()))
    assert_same(found[0], found[1])
    policy = [key for key in found[0] if key.startswith("policy")]
    assert any(not torch.equal(found[0][key], found[2][key]) for key in policy)


@pytest.mark.parametrize("name", [*PEERS, "maasn-da", "hindsight"])
def test_a_single_node_is_served(name):
    """There are no neighbours to see and no copies beside one's own."""
    scenario = read_scenario(TINY)
    nodes = scenario.nodes.model_copy(update={"count": 1})
    draws = surrogate_episodes(scenario.model_copy(update={"nodes": nodes}), range(3))
    pool = Pool(0, draws, lookahead_of(draws, steps=2)[0], 3)
    kind = learner_kind(name)
    config = kind.config({"width": 8, "embedding": 4})
    learner = kind.load().Learner(config, FixedSource(pool), seed=0, device=torch.device("cpu"))
    for _ in range(3):
        learner.step()
    assert play(draws, learner.policy()).total.isfinite().all()


@pytest.mark.parametrize("name", PEERS)
def test_goes_on_from_what_was_saved(name):
    """A learner that takes over after a step does the next one as the first would have."""
    first, second = started(name, 0, **SMALL), started(name, 5, **SMALL)
    first.step()
    saved = {key: value.clone() for key, value in tensors_of(first.parts()).items()}
    load_tensors(second.parts(), saved)
    second.load_extra(*first.extra())
    assert first.step() == second.step()
    assert_same(tensors_of(first.parts()), tensors_of(second.parts()))


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        *((name, "") for name in ("mappo", "happo", "mat", "graph")),
        ("vdn", "joint"),
        ("maasn-da", "joint"),
        ("maasn-da", "in-turn"),
        ("hindsight", "joint"),
        ("hindsight", "in-turn"),
    ],
)
def test_a_resumed_training_ends_the_same(name, keep, tmp_path):
    """By `train`, with checkpoints on disk: 2 steps and 2 more against 4."""

    def run(steps: int) -> Any:
        table = {"learner": name, "scenarios": [TINY], "held_out": 1, "checkpoint_every": 2}
        options = {**SMALL, "play_every": 1} if name == "maasn-da" else SMALL
        parts = {"source": {"draws": 2, "price_steps": 2}, "options": options}
        table |= {"keep": keep} if keep else {}
        return run_config({**table, **parts, "steps": steps, "validate_every": 2})

    train(run(4), tmp_path / "whole")
    train(run(2), tmp_path / "parts")
    train(run(4), tmp_path / "parts", resume=True)
    whole, parts = (
        dict(read_checkpoint(states(tmp_path / part)[-1]).tensors) for part in ("whole", "parts")
    )
    assert_same(whole, parts)


@pytest.mark.parametrize("name", PEERS)
def test_one_policy_serves_other_systems(name):
    """Trained on 2 nodes and 2 blocks, loaded from its tensors, played on 3 nodes, 12 blocks."""
    learner = started(name, **SMALL)
    learner.step()
    tensors = {k: v for k, v in tensors_of(learner.parts()).items() if k.startswith("policy")}
    kind = learner_kind(name)
    loaded = kind.load().trained(kind.config(SMALL), tensors)
    assert total(learner) == float(play(game(), loaded).total)
    assert bool(play(episodes(), loaded).total.isfinite().all())
    with pytest.raises(ValueError, match="another architecture"):
        kind.load().trained(kind.config({**SMALL, "width": 16}), tensors)


@pytest.mark.parametrize("name", ["mappo", "mat", "graph", "qmix"])
def test_starts_as_the_method_rolling(name):
    """Without lookahead, before any step: the expected saving of the next slot, given others."""
    policy = started(name, rounds=3).policy()
    mine = play(episodes(), policy)
    theirs = roll(episodes(), Rolling(), rounds=3, joint=getattr(policy, "joint", ""))
    torch.testing.assert_close(mine.total, theirs.total)


def test_advantages_by_hand():
    """Three stages, gamma 1/2 after the stage of keeping, lambda 1/2."""
    reward = torch.tensor([-1.0, -2.0, -4.0])
    value = torch.tensor([-3.0, -3.0, -5.0])
    # delta: -1 - 3 + 3 = -1;  -2 - 5/2 + 3 = -3/2;  -4 + 5 = 1
    # A: 1;  -3/2 + 1/4 = -5/4;  -1 - 5/8 = -13/8
    found = advantages(reward, value, discount=0.5, gae_lambda=0.5)
    torch.testing.assert_close(found, torch.tensor([-13 / 8, -5 / 4, 1.0]))


def test_margins_by_hand():
    """Draw 0 kept 5 and 3, dropped 2 and, too large to fit, 4; in draw 1 all fitted."""
    logits = torch.tensor([5.0, 3.0, 2.0, 4.0, 7.0])
    kept = torch.tensor([True, True, False, False, True])
    draw = torch.tensor([0, 0, 0, 0, 1])
    wanted = torch.tensor([2.0, 2.0, 3.0, 3.0, torch.inf])
    assert torch.equal(margins(logits, kept, draw), wanted)


def test_chances_given_the_margins_have_the_gradient_of_what_was_kept():
    """Two blocks, room for one: the mean score is the derivative of the chance, by sampling."""
    start = torch.tensor([0.4, -0.3])
    uniform = torch.rand((100_000, 2), generator=torch.Generator().manual_seed(0))
    logits = start + torch.logit(uniform)
    kept = logits == logits.amax(dim=1, keepdim=True)
    draw = torch.arange(len(logits))[:, None].expand(-1, 2)
    margin = margins(logits.flatten(), kept.flatten(), draw.flatten()).view(-1, 2)
    score = kept.float() - torch.sigmoid(start - margin)  # of log chance, by the logit
    found = (kept[:, :1] * score).mean(dim=0)  # derivative of the chance of the first block
    # d/dl of E[sigmoid(l - m)], m logistic around -0.3, is E[s (1 - s)], by a fine quantile grid.
    grid = (torch.arange(100_000) + 0.5) / 100_000
    s = torch.sigmoid(0.4 - (-0.3 + torch.logit(grid)))
    slope = float((s * (1 - s)).mean())
    torch.testing.assert_close(found, torch.tensor([slope, -slope]), atol=3e-3, rtol=0)


def test_expected_cost_by_hand():
    """The game in slot 0 from empty caches: 1.1 s now, and after it what both nodes lead to."""
    look = lookahead_of(game(), steps=10)[0].slot(0)
    slot = game().slot(0)
    found = expected_cost(slot, look, packed(game().start))
    one, both = 1.0 + 0.55 + look.after[0, :, 1], 1.0 + 0.1 + look.after[0, :, 3]
    torch.testing.assert_close(found[0], torch.minimum(one, both), check_dtype=False)


@pytest.mark.parametrize("mixing", ["sum", "monotonic"])
def test_values_of_sets(mixing):
    """0 for no node; a sum over nodes in VDN; in QMIX rising with the value of the node."""
    config = qmix.Config(mixing=mixing)
    torch.manual_seed(0)
    network = qmix.SetValues(config, 3)
    for parameter in network.nodes.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    slot = episodes().slot(0)
    cached = packed(episodes().start)
    view = critic_view(slot, cached, cached)
    rows = Rows.where(slot.real)
    seen = seen_of(Observer(False)(view), rows)
    value = network(seen).detach()
    alone = value[:, [1, 2, 4]]
    torch.testing.assert_close(value[:, 0], torch.zeros(len(value)), atol=1e-6, rtol=0)
    assert float(alone.abs().max()) > 0.01
    if mixing == "sum":
        torch.testing.assert_close(value[:, 7], alone.sum(dim=1))
    else:
        own = -network.nodes(seen).keep.detach()
        assert torch.equal(alone > 0, own > 0)
        order = own.argsort(dim=1)
        ordered = alone.gather(1, order)
        assert bool((ordered.diff(dim=1) >= 0).all())


def test_learns_the_differences_of_the_second_slot():
    """After it nothing comes, so G_B(none) - G_B(both) is 1.1 - 0.1 s, in units of 1 s a byte."""
    learner = started("qmix")
    for _ in range(15):
        learner.step()
    player = learner.policy()
    assert isinstance(player, qmix.SetPolicy)
    play(game(), player)
    table = player.table[0, 1]  # B in slot 0
    assert float(table[0] - table[3]) == pytest.approx(1.0, abs=0.1)
    assert float(table[0] - table[1]) == pytest.approx(0.55, abs=0.1)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (ppo, {"credit": "node"}, "credit: 'node'"),
        (ppo, {"batch": 0}, "batch: 0"),
        (ppo, {"architecture": "tree"}, "architecture: 'tree'"),
        (ppo, {"architecture": "sequence", "width": 10}, "width: 10"),
        (ppo, {"architecture": "graph", "action_semantics": False}, "action_semantics: false"),
        (qmix, {"mixing": "mean"}, "mixing: 'mean'"),
        (qmix, {"gradient_clip": float("nan")}, "gradient_clip: nan"),
    ],
)
def test_refuses_bad_options(module, options, message):
    """In one line that names option and value."""
    with pytest.raises(ValueError, match=message) as caught:
        module.Config(**options)
    assert "\n" not in str(caught.value)
