"""Restricted systems: judged like the full one, and never faster at their optimum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from repository import TINY

from finecast.problem.instance import Instance
from finecast.problem.scenario import read_scenario
from finecast.solvers.prepared import prepare
from finecast.solvers.restrictions import RESTRICTIONS, messages
from finecast.solvers.solve import solve

INSTANCE = read_scenario(TINY).generate(2)


def with_error(share: float) -> Instance:
    """Return the instance with error balls of a share of each channel's norm."""
    error = share * np.linalg.norm(INSTANCE.channel_estimate, axis=3)
    return replace(INSTANCE, channel_error=error)


@pytest.mark.parametrize("restriction", [*RESTRICTIONS, "no-comp,unicast", "coarse,no-migration"])
def test_judged_like_any_other(restriction):
    """Every restricted answer breaks no rule of the judge, and its bound lies below its delay."""
    names = restriction.split(",")
    result = solve(INSTANCE, restrict=names)
    assert [str(v) for v in result.evaluation.violations] == []
    assert result.lower_bound <= result.delay


def test_no_comp_by_hand():
    """Each user listens to its strongest node alone; a message is for the users of one node."""
    plan = messages(INSTANCE, 0, frozenset({"no-comp"}))
    strongest = np.linalg.norm(INSTANCE.channel_estimate[0], axis=2).argmax(axis=1)
    for g in range(len(plan.of_group)):
        parts = np.flatnonzero(plan.of_group[g])
        covered = plan.users[parts].sum(axis=0)
        assert covered.max() <= 1
        for p in parts:
            (node,) = {int(strongest[k]) for k in np.flatnonzero(plan.users[p])}
            assert plan.allowed[p] == 1 << node


def test_no_comp_goes_by_what_arrives():
    """The strongest node is that of the largest received power: with 1e6 times the power of the
    other, the weaker channel serves everybody."""
    strength = np.linalg.norm(INSTANCE.channel_estimate[0], axis=2)
    for loud in range(INSTANCE.nodes):
        power = np.ones(INSTANCE.nodes)
        power[loud] = 1e6
        network = replace(INSTANCE.network, power=power)
        plan = messages(replace(INSTANCE, network=network), 0, frozenset({"no-comp"}))
        assert (strength.max(axis=1) < 1e3 * strength[:, loud]).all()
        assert (plan.allowed == 1 << loud).all()


def test_unicast_sends_to_one_user_at_a_time():
    """Every message of a unicast solution has one listener, and everybody still gets everything."""
    solution = solve(INSTANCE, restrict="unicast").solution
    for broadcast in solution.broadcasts:
        assert (broadcast.users.sum(axis=1) == 1).all()


def test_no_migration_takes_from_the_cloud():
    """Received blocks all come from the cloud."""
    solution = solve(INSTANCE, restrict=["no-migration"]).solution
    assert solution.received.any()
    assert (solution.source[solution.received] == INSTANCE.nodes).all()


def test_coarse_has_one_block_per_model():
    """The coarse system has as many blocks as models, each of the model's whole size."""
    prepared = prepare(INSTANCE, restrict=["coarse"])
    assert prepared.instance.blocks == INSTANCE.models
    assert np.array_equal(prepared.instance.library.block_size, INSTANCE.library.model_size)


def test_non_robust_pays_when_the_channel_differs():
    """True channels at 0.71 of the estimates, within balls of 0.3: the nominal plan is feasible,
    guarantees nothing and repeats everything; the robust one keeps its word."""
    weaker = with_error(0.3)
    network = replace(weaker.network, max_spectral_efficiency=np.inf)
    instance = replace(weaker, channel_true=0.71 * weaker.channel_estimate, network=network)
    result = solve(instance, restrict=["non-robust"])
    assert result.evaluation.feasible
    assert not result.evaluation.guaranteed
    assert result.delay == np.inf
    assert result.evaluation.realised_delay > result.evaluation.planned_delay
    robust = solve(instance)
    assert robust.evaluation.guaranteed
    assert robust.evaluation.realised_delay == pytest.approx(robust.delay)
    assert robust.delay > result.evaluation.planned_delay


def test_restricted_tables_are_slower():
    """At every holder set, a restricted system needs at least the time of the full one."""
    full = prepare(INSTANCE).bounded
    for names in (["no-comp"], ["unicast"], ["no-comp", "unicast"]):
        restricted = prepare(INSTANCE, restrict=names).achieved
        for slow, fast in zip(restricted.broadcast, full.broadcast, strict=True):
            assert (slow >= fast * (1 - 1e-9)).all()


def test_unknown_restriction():
    """The error names it and those there are."""
    with pytest.raises(ValueError, match=r"restrict: 'no-fun'.*coarse.*unicast"):
        solve(INSTANCE, restrict=["no-fun"])
