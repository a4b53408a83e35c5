"""Learned nodes that decide apart: what they see, what they imitate, how they resume."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
import torch
from learner_scenarios import instance, scenario

from finecast.learners.algorithms import apart_maasn, imitation
from finecast.learners.algorithms.apart_actors import (
    ARCHITECTURES,
    ApartActors,
    ApartOptions,
    apart_network,
    plan_of,
)
from finecast.learners.algorithms.imitation import keep_chance, lesson_of, saved_beside
from finecast.learners.networks.apart import OWN, seen_apart, worth_of_a_byte
from finecast.learners.networks.apart_graph import CrowdSeen, with_users
from finecast.learners.policy import load_policy
from finecast.learners.registry import learner_kind
from finecast.learners.runs.checkpoints import read_checkpoint
from finecast.learners.runs.config import run_config
from finecast.learners.runs.training import train
from finecast.learners.world.baselines import of_blocks
from finecast.learners.world.beliefs import beliefs_of, joined_beliefs
from finecast.learners.world.draws import surrogate_episodes
from finecast.learners.world.environment import View, near_nodes, packed, roll, unpacked
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.joint import keep_by_sets
from finecast.problem.files import FormatError
from finecast.solvers.information import homes
from finecast.solvers.online import prior_of, reach_of
from finecast.solvers.solve import solve

STRUCTURES = ("full", "delayed", "local")


@cache
def drawn(information: str) -> Episodes:
    """Return three draws of 4 nodes, 12 blocks and 4 slots, with beliefs."""
    four = scenario(nodes={"count": 4})
    return surrogate_episodes(four, [0, 1, 2], exponent=0.5, information=information)


def keeping(draws: Episodes, t: int = 1, seed: int = 0) -> View:
    """Return a view in which the nodes choose what to keep, with random caches and deliveries."""
    generator = torch.Generator().manual_seed(seed)
    slot = draws.slot(t)
    shape = (slot.draws, slot.nodes, slot.blocks)
    cache = torch.rand(shape, generator=generator) < 0.4
    held = cache | (torch.rand(shape, generator=generator) < 0.2)
    cached = packed(cache)
    return View(slot, cached, packed(held), torch.zeros_like(cached), in_turn=False, keeping=True)


def network(information: str = "delayed", seed: int = 0, architecture: str = "pairs"):
    """Return a network whose heads are not 0: what it sees shows in its scores."""
    torch.manual_seed(seed)
    sizes = {"width": 8, "embedding": 4, "memory": 4}
    made = apart_network(ApartOptions(**sizes, information=information, architecture=architecture))
    for head in (made.alone, made.meets):
        torch.nn.init.normal_(head.weight)
    return made


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("information", ["delayed", "local"])
def test_no_bit_of_what_is_hidden_decides(information, architecture):
    """All that a node does not see is changed: its scores stay the same to the bit.

    That is the whole slot with its requests and tables, the beliefs of the other nodes, the
    planner's costs, what the others hold, and the caches of nodes that are not near.
    """
    view = keeping(drawn(information))
    slot, n = view.slot, 1
    generator = torch.Generator().manual_seed(5)
    others = torch.arange(slot.nodes) != n
    noise = {
        name: torch.rand(getattr(slot, name).shape, generator=generator)
        for name in ("broadcast", "listeners", "need", "air", "worth", "audience", "recency")
    }
    beliefs = slot.beliefs
    cost, asked = beliefs.cost.clone(), beliefs.asked.clone()
    cost[:, 1:][:, others] = torch.rand(cost[:, 1:][:, others].shape, generator=generator)
    asked[:, others] = torch.rand(asked[:, others].shape, generator=generator)
    wants, reach = beliefs.wants.clone(), beliefs.reach.clone()
    wants[:, others] = -1
    reach[:, others] = torch.rand(reach[:, others].shape, generator=generator)
    changed_beliefs = {"cost": cost, "asked": asked, "wants": wants, "reach": reach}
    changed_slot = replace(
        slot,
        group=torch.randint(-1, 1, slot.group.shape, generator=generator),
        requests=torch.zeros_like(slot.requests),
        reach=torch.zeros_like(slot.reach),
        beliefs=replace(beliefs, **changed_beliefs, expert=torch.rand(beliefs.expert.shape)),
        **noise,
    )
    seen_bits = (beliefs.seen[:, n].long() << torch.arange(slot.nodes)).sum(dim=1)[:, None]
    hidden_bits = 15 & ~seen_bits
    flip = torch.randint(16, view.cached.shape, generator=generator)
    changed = replace(
        view,
        slot=changed_slot,
        cached=view.cached ^ (flip & hidden_bits),
        held=view.held & 1 << n
        | torch.randint(8, view.held.shape, generator=generator) & ~(1 << n),
    )
    made = network(information, architecture=architecture)
    before = ApartActors(made, information).keep(view, None)[:, n]
    after = ApartActors(made, information).keep(changed, None)[:, n]
    assert (before == after).all()
    # Its own row does show: the test can fail.
    cost = beliefs.cost.clone()
    cost[:, 1 + n] *= torch.linspace(0.5, 2.0, cost.shape[3])
    own = replace(view, slot=replace(slot, beliefs=replace(beliefs, cost=cost)))
    assert (ApartActors(made, information).keep(own, None)[:, n] != before).any()
    # So do the users that it sees, where they exchange messages with the nodes.
    nobody = replace(view, slot=replace(slot, beliefs=replace(beliefs, wants=-(beliefs.wants**0))))
    heard = (ApartActors(made, information).keep(nobody, None)[:, n] != before).any()
    assert bool(heard) == (architecture == "graph")


def test_users_are_seen_as_far_as_the_structure_lets():
    """Requests by hand: of its own users now, of others a slot later or never."""
    made = instance()
    home = homes(reach_of(prior_of(made), made.channel_estimate[:1], made.channel_error[:1])[0])
    own = home == np.arange(made.nodes)[:, None]  # (N, K)
    for information in STRUCTURES:
        beliefs = beliefs_of(made, information)
        assert torch.isfinite(beliefs.reach).all()
        for t in range(made.slots):
            now, newest = beliefs.wants[0, t].numpy().transpose(2, 0, 1)
            before = made.requests[t - 1] if t else np.full_like(made.requests[0], -1)
            everywhere = own | (information == "full")
            late = own if information == "local" else np.ones_like(own)
            assert (now == np.where(everywhere, made.requests[t], -1)).all()
            hidden = np.where(late & (t > 0), before, -1)
            assert (newest == np.where(everywhere, made.requests[t], hidden)).all()


def test_a_graph_permutes_with_its_nodes_and_does_not_see_the_order_of_users():
    """What nodes see, with nodes or users renumbered: the scores are renumbered, or the same."""
    view = keeping(drawn("local"))
    slot = view.slot
    seen = with_users(seen_apart(slot, view.cached, view.held, plan_of(view, "local")), slot)
    made = network("local", architecture="graph")
    scores, memory = made(seen, made.begin(seen))
    users = torch.randperm(seen.user.shape[2], generator=torch.Generator().manual_seed(2))
    of_users = ("user", "share", "asks")
    other = replace(seen, **{name: getattr(seen, name)[:, :, users] for name in of_users})
    torch.testing.assert_close(made(other, made.begin(other))[0], scores, rtol=1e-4, atol=1e-5)
    # Node i of the renumbered system is node order[i]; the others of a node are in their order.
    order = torch.tensor([2, 0, 3, 1])
    near = near_nodes(4, order.device)
    place = [[int((near[n] == m).nonzero()) for m in order[near[i]]] for i, n in enumerate(order)]
    neighbour = torch.stack(
        [seen.neighbour[:, n][:, :, at] for n, at in zip(order, place, strict=True)], dim=1
    )
    rows = {f.name: getattr(seen, f.name)[:, order] for f in fields(seen)}
    rows |= {"neighbour": neighbour, "share": rows["share"][..., order]}
    permuted = CrowdSeen(**rows)
    after, kept = made(permuted, made.begin(permuted))
    torch.testing.assert_close(after, scores[:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kept, memory[:, order], rtol=1e-4, atol=1e-5)


def test_local_hides_caches():
    """Some nodes of the draws do not see each other, so that the test above hides something."""
    assert not drawn("local").beliefs.seen.all()
    assert drawn("delayed").beliefs.seen.all()


def test_savings_by_hand():
    """What a copy saves beside the plan, by each node's own costs, over the worth of a byte."""
    view = keeping(drawn("delayed"))
    slot, beliefs = view.slot, view.slot.beliefs
    plan = plan_of(view, "delayed")
    seen = seen_apart(slot, view.cached, view.held, plan)
    unit = worth_of_a_byte(slot)
    for e, n, j in ((0, 0, 0), (1, 2, 5), (2, 1, 11)):
        table = beliefs.cost[e, 1 + n, slot.kind[e, j]]
        others = int(plan[e, j]) & ~(1 << n)
        saved = (table[others] - table[others | 1 << n]) / unit[e]
        assert seen.saved[e, n, j] == pytest.approx(float(saved), rel=1e-5, abs=1e-6)
        here = seen.own[e, n, j, OWN.index("cached here")]
        assert bool(here) == bool(view.cached[e, j] >> n & 1)


def test_with_full_information_the_planner_is_reached():
    """All nodes compute the planner's choice: with a great bonus they keep all of it."""
    draws = drawn("full")
    made = apart_network(ApartOptions(information="full", bonus=1e6))
    for t in range(draws.slots - 1):
        view = keeping(draws, t, seed=t)
        slot = view.slot
        held = unpacked(torch.where(slot.real, view.held, 0), slot.nodes)
        cost = of_blocks(slot, slot.beliefs.expert)
        planner = plan_of(view, "full")
        # Two searches for the same: the plan that the scores rest on, and the planner alone.
        free_of_start = packed(keep_by_sets(slot, held, cost))
        value = {
            sets: (slot.size * cost.gather(2, kept[..., None])[..., 0]).sum(dim=1)
            for sets, kept in (("plan", planner), ("rule", free_of_start))
        }
        torch.testing.assert_close(value["plan"], value["rule"], rtol=2e-2, atol=1e-9)
        score = ApartActors(made, "full").keep(view, None)
        planned_at = unpacked(planner, slot.nodes)
        for e in range(slot.draws):
            for n in range(slot.nodes):
                planned = planned_at[e, n] & (slot.size[e] > 0)
                if planned.any() and float(score[e, n].max()) > 1e3:  # a byte here is worth it
                    assert score[e, n][planned].min() > score[e, n][~planned_at[e, n]].max()


def test_lessons_by_hand():
    """A lesson is the worth of a byte less the saving beside the others, by the planner's costs."""
    view = keeping(drawn("delayed"))
    slot = view.slot
    cost = of_blocks(slot, slot.beliefs.expert)
    sets = packed(unpacked(view.held, slot.nodes))
    saved = saved_beside(cost, sets, slot.nodes)
    for e, n, j in ((0, 1, 3), (2, 0, 7)):
        others = int(sets[e, j]) & ~(1 << n)
        by_hand = cost[e, j, others] - cost[e, j, others | 1 << n]
        assert saved[e, n, j] == pytest.approx(float(by_hand))
    # Where everything fits a byte is worth nothing, and keeping costs what it does not save.
    roomy = replace(slot, storage=slot.storage * 1e6)
    kept = unpacked(view.held, slot.nodes)
    lesson = lesson_of(roomy, view.held, kept, False)
    unit = worth_of_a_byte(slot)[:, None, None]
    torch.testing.assert_close(lesson.lost, -saved / unit, rtol=1e-5, atol=1e-6)


def test_chances_about_the_end_of_the_storage():
    """Kept blocks are likelier than a half, others less; nothing to decide has no gradient."""
    scores = torch.tensor([[[3.0, 2.0, 1.0, 9.0]]], requires_grad=True)
    may = torch.tensor([[[True, True, True, False]]])
    kept = torch.tensor([[[True, True, False, False]]])
    chance = keep_chance(scores, may, kept, 0.5)
    torch.testing.assert_close(chance[0, 0, :3], torch.sigmoid(torch.tensor([3.0, 1.0, -1.0])))
    assert chance[0, 0, 3] == 0
    all_fit = keep_chance(scores, may, may, 0.5)
    all_fit.sum().backward()
    assert (all_fit == may).all()
    assert (scores.grad == 0).all()


def test_beliefs_are_those_of_the_rule_apart():
    """Row 0 is common, row 1 + n what node n sees; with full information all rows are equal."""
    full = beliefs_of(instance(), "full")
    for n in range(3):
        assert (full.cost[:, :, 1 + n] == full.cost[:, :, 0]).all()
    assert (full.cost[:, :-1, 0] == full.expert[:, :-1]).all()
    delayed = beliefs_of(instance(), "delayed")
    assert (delayed.cost[:, :, 1] != delayed.cost[:, :, 2]).any()
    both = joined_beliefs([full, delayed])
    assert (both.select(torch.tensor([1])).cost == delayed.cost).all()
    with pytest.raises(ValueError, match=r"^information: 'senders' is not allowed for learners"):
        beliefs_of(instance(), "senders")


SMALL = {"width": 8, "embedding": 4, "memory": 4}
RUNS = [
    ("imitation", "delayed", {"draws": 2, "passes": 1, "expert_steps": 3}),
    ("maasn-da", "local", {"batch": 2, "replay": 6, "lessons": 3, "rows": 16}),
    ("graph", "local", {"batch": 2, "replay": 6, "lessons": 3, "rows": 16}),
]


def run_of(name: str, information: str, options: dict, steps: int, tiny_file: str):
    """Return a short run."""
    return run_config(
        {
            "learner": name,
            "scenarios": [tiny_file],
            "information": information,
            "steps": steps,
            "validate_every": 4,
            "checkpoint_every": 2,
            "held_out": 1,
            "source": {"draws": 4, "price_steps": 4},
            "options": {**SMALL, **options},
        }
    )


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    """Return the file of the small scenario, with two slots more than the memory needs."""
    path = tmp_path_factory.mktemp("apart") / "small.toml"
    path.write_text(scenario_toml())
    return str(path)


def scenario_toml() -> str:
    """Return the small scenario as TOML."""
    lines = ['name = "small"', "slots = 4"]
    for section, table in scenario().model_dump(exclude_none=True, exclude_defaults=True).items():
        if isinstance(table, dict) and section != "library":
            lines.append(f"[{section}]")
            lines += [
                f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
                for key, value in table.items()
                if not isinstance(value, dict)
            ]
    lines += ["[library.synthetic]", "models = 6", "blocks = 12", "families = 2", "total_gb = 1.0"]
    return "\n".join(lines).replace("'", '"').replace("(", "[").replace(")", "]")


@pytest.mark.parametrize(("name", "information", "options"), RUNS)
def test_a_resumed_run_ends_the_same(tmp_path, tiny_file, name, information, options):
    """Interrupted at step 5 of 8, within an episode and with a memory: the same weights."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(run_of(name, information, options, 8, tiny_file), whole)
    train(run_of(name, information, options, 5, tiny_file), cut)
    train(run_of(name, information, options, 8, tiny_file), cut, resume=True)
    first, second = (read_checkpoint(folder / "state-00000008.json") for folder in (whole, cut))
    assert first.tensors.keys() == second.tensors.keys()
    for key, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[key]), key


@pytest.mark.parametrize(("name", "information", "options"), RUNS)
def test_a_checkpoint_plays_what_it_was_trained_for(
    tmp_path, tiny_file, name, information, options
):
    """The method `policy` plays it, tells the information, and refuses another structure."""
    trained = train(run_of(name, information, options, 2, tiny_file), tmp_path / "run")
    policy, _ = load_policy(trained.checkpoint)
    assert policy.information == information
    result = solve(instance(7), "policy", checkpoint=trained.checkpoint)
    assert result.evaluation.feasible
    assert any(f"information {information}" in note for note in result.notes)
    assert any("bytes a slot" in note for note in result.notes)
    other = "full" if information == "delayed" else "delayed"
    with pytest.raises(ValueError, match=f"information: '{other}' is not allowed with checkpoint"):
        solve(instance(7), "policy", checkpoint=trained.checkpoint, information=other)


def test_maasn_starts_from_imitation_of_the_same_structure(tmp_path, tiny_file):
    """Weights are taken as they are; another structure is refused in one line."""
    name, information, options = RUNS[0]
    begun = train(run_of(name, information, options, 2, tiny_file), tmp_path / "imitation")
    table = run_of("maasn-da", "delayed", RUNS[1][2], 2, tiny_file).as_dict()
    table["warm_start"] = str(begun.folder)
    train(run_config(table), tmp_path / "maasn")
    table["information"] = "local"
    table["options"] = {**SMALL, **RUNS[1][2]}
    with pytest.raises((ValueError, FormatError), match="information must be 'delayed' too"):
        train(run_config(table), tmp_path / "other")


def test_learners_that_see_everything_say_so():
    """One line for a learner without actors that decide apart, and for an unknown structure."""
    with pytest.raises(ValueError, match=r"^information: 'local' is not allowed with learner 'qmi"):
        learner_kind("qmix").config({}, "local")
    with pytest.raises(ValueError, match=r"information: 'senders' is not allowed, must be one of"):
        learner_kind("imitation").config({}, "senders")
    with pytest.raises(ValueError, match="in_turn: true is not allowed"):
        apart_maasn.Config(in_turn=True)
    for wrong in (apart_maasn.Config, imitation.Config):
        with pytest.raises(ValueError, match="architecture: 'tree' is not allowed"):
            wrong(architecture="tree")
        with pytest.raises(ValueError, match="action_semantics: false is not allowed with arch"):
            wrong(architecture="graph", action_semantics=False)
    with pytest.raises(ValueError, match="tau"):
        imitation.Config(tau=0.0)


def test_memory_begins_anew_with_an_episode():
    """A policy that has played an episode plays the next one as a new policy does."""
    draws = drawn("delayed")
    actors = ApartActors(network(), "delayed")
    with torch.no_grad():
        first = roll(draws, actors, in_turn=False).total
        assert actors.memory is not None
        assert (actors.memory != 0).any()
        assert (roll(draws, actors, in_turn=False).total == first).all()
