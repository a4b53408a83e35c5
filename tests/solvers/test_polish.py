"""Better beams for the messages that are sent, and what they gain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from repository import TINY

from finecast.problem.scenario import read_scenario
from finecast.solvers.beamforming.by_name import KERNEL
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.problem import placement_delay
from finecast.solvers.polish import polished
from finecast.solvers.prepared import prepare


def test_gain_is_the_share_by_which_the_delay_falls():
    """From matched beams, which are loose, the kernel's search gains; the gain is that of the
    placement's delay at the rates after over those before, and by no means zero."""
    instance = read_scenario(TINY).generate(2)
    network = replace(instance.network, max_spectral_efficiency=np.inf)
    instance = replace(instance, network=network)
    loose = replace(prepare(instance, beamforming="matched"), beamforming=KERNEL)
    placement = greedy_placement(loose.achieved)
    better, gain = polished(loose, placement, seed=0)
    slow, fast = (placement_delay(p.achieved, placement) for p in (loose, better))
    assert gain == pytest.approx((slow - fast) / slow, rel=1e-12)
    assert gain > 0.005


def test_other_beams_are_left_alone():
    """A comparison of beamforming methods must not be helped out."""
    prepared = prepare(read_scenario(TINY).generate(0), beamforming="matched")
    same, gain = polished(prepared, greedy_placement(prepared.achieved), seed=0)
    assert same is prepared
    assert gain == 0.0
