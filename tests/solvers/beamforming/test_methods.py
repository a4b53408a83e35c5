"""The table of beamforming methods: every name works and agrees where the optimum is known."""

import numpy as np
import pytest

from solvers.beamforming.methods import NAMES, beamforming_method


@pytest.mark.parametrize("name", NAMES)
def test_one_user_without_error_is_served_by_maximum_ratio_transmission(name):
    """Every method, called as the rate table calls it: (2 * 5 + 1 * 3)^2 = 169."""
    channel, error, power = np.array([[[3, 4j], [3, 0]]]), np.zeros((1, 2)), np.array([4.0, 1.0])
    result = beamforming_method(name)(channel, error, power, seed=1)
    assert result.snr == pytest.approx(169, rel=1e-5)
    assert (np.sum(np.abs(result.beamformer) ** 2, axis=1) <= power).all()
    assert not result.beamformer.flags.writeable


def test_unknown_method_is_named():
    """ValueError with the name and the known ones."""
    with pytest.raises(ValueError, match=r"'magic' is unknown, expected one of .*wmmse"):
        beamforming_method("magic")
