"""The table of beamforming methods: every name works and agrees where the optimum is known."""

from __future__ import annotations

import numpy as np
import pytest

from finecast.solvers.beamforming.by_name import NAMES, check_name, solve_messages


@pytest.mark.parametrize("name", NAMES)
def test_one_user_without_error_is_served_by_maximum_ratio_transmission(name):
    """Two messages in one batch, to one user each: from both nodes, (2 * 5 + 1 * 3)^2 = 169; to
    the second user from the second node alone, (1 * 2)^2 = 4. Masked nodes stay silent."""
    channel = np.array([[[3, 4j], [3, 0]], [[1, 1], [0, 2j]]])
    beams = solve_messages(
        name,
        np.stack([channel, channel]),
        np.zeros((2, 2, 2)),
        np.array([4.0, 1.0]),
        node_mask=np.array([[True, True], [False, True]]),
        user_mask=np.array([[True, False], [False, True]]),
        seed=1,
    )
    assert beams.snr == pytest.approx([169, 4], rel=1e-5)
    assert (beams.bound >= beams.snr * (1 - 1e-12)).all()
    assert beams.bound == pytest.approx([169, 4], rel=1e-5)
    power = np.sum(np.abs(beams.beamformer) ** 2, axis=2)
    assert (power <= np.array([4.0, 1.0]) * (1 + 1e-12)).all()
    assert power[1, 0] == 0


@pytest.mark.parametrize("name", ["multicast", "matched"])
@pytest.mark.parametrize("antennas", [1, 3])
def test_what_is_only_rounding_reaches_nobody(name, antennas):
    """Errors of exactly the norm of each channel, and next to it: no SNR by any beam.

    |g^H w| - eps |w| is then a few roundings, of either sign. A user with half the error is served.
    """
    rng = np.random.default_rng(antennas)
    batch, nodes = 40, 2
    shape = (batch, 1, nodes, antennas)
    channel = rng.normal(size=(*shape, 2)) @ [1.0, 1j] * 10 ** rng.uniform(-3, 5, (batch, 1, 1, 1))
    norm = np.linalg.norm(channel, axis=3)
    masks = {
        "node_mask": np.ones((batch, nodes), dtype=bool),
        "user_mask": np.ones((batch, 1), dtype=bool),
    }
    for share, served in ((1.0, False), (1 - 2e-16, False), (1 + 2e-16, False), (0.5, True)):
        found = solve_messages(name, channel, share * norm, np.ones(nodes), **masks)
        assert ((found.snr > 0) == served).all()
        assert (found.bound >= found.snr).all()


def test_unknown_method_is_named():
    """ValueError with the name and the known ones."""
    with pytest.raises(ValueError, match=r"'magic' is unknown, expected one of .*wmmse"):
        check_name("magic")
