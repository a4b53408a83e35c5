"""Drawn channels: link budget, statistics of fading and shadowing, error balls, repeatability."""

import numpy as np
import pytest

from finecast.problem.channel import Channels, draw_channels, draw_true_channel
from finecast.problem.network import db_to_linear, dbm_to_w, thermal_noise_w
from finecast.problem.pathloss import los_probability

NODES = np.array([[0.0, 0.0], [200.0, 0.0], [100.0, 173.2]])
USERS = np.array([[50.0, 20.0], [120.0, 60.0], [-40.0, 70.0], [90.0, 100.0]])


def draw(node=NODES, user=USERS, seeds=(1, 2, 3), **changes):
    """Channels of three nodes and four users over five slots, with any part changed."""
    large_scale, fading, error = (np.random.default_rng(seed) for seed in seeds)
    return draw_channels(
        node,
        user,
        large_scale_rng=large_scale,
        fading_rng=fading,
        error_rng=error,
        **({"slots": 5, "antennas": 4} | changes),
    )


def test_link_budget_by_hand():
    """30 dBm over 100 MHz with a noise figure of 9 dB, UMi in sight at 100 m and 3.5 GHz: 29.7 dB.

    Transmit power 30 dBm = 1 W. Slant sqrt(100^2 + 8.5^2) = 100.361 m; path loss
    32.4 + 21 log10(100.361) + 20 log10(3.5) = 32.4 + 42.033 + 10.881 = 85.314 dB. Noise
    -174 + 10 log10(10^8) + 9 = -85 dBm. SNR = 30 - 85.314 + 85 = 29.686 dB, a factor of 930.
    Decibels in place of factors, 10^30 for 30 dBm or a density without its bandwidth miss by
    orders of magnitude; amplitude for power by 29 dB; a fading power of 2 or 1/2 by 3 dB.
    """
    channels = draw(
        [[0.0, 0.0]], [[100.0, 0.0]], slots=20_000, antennas=1, los="los", shadowing=False
    )
    power_gain = np.mean(np.abs(channels.estimate) ** 2)
    snr = dbm_to_w(30.0) * power_gain / thermal_noise_w(100e6, 9.0)
    assert channels.gain_db[0, 0] == pytest.approx(-85.314, abs=1e-3)
    assert 10.0 * np.log10(snr) == pytest.approx(29.686, abs=0.15)
    assert snr == pytest.approx(930.0, rel=0.035)


@pytest.mark.parametrize("los", ["los", "nlos"])
@pytest.mark.parametrize("antennas", [1, 4])
def test_mean_power_is_antennas_times_gain(los, antennas):
    """E norm(h)^2 = A gain on every link, Rician or Rayleigh, shadowing included."""
    channels = draw(slots=6000, antennas=antennas, los=los)
    power = np.mean(np.linalg.norm(channels.estimate, axis=3) ** 2, axis=0)
    np.testing.assert_allclose(power, antennas * db_to_linear(channels.gain_db), rtol=0.12)


def test_iid_is_rayleigh_of_one_gain():
    """The stress class: |h|^2 / gain is exponential with mean 1, so P(> 1) = 1/e; no structure."""
    channels = draw(environment="iid", slots=2000, antennas=2, gain_db=-80.0)
    power = np.abs(channels.estimate) ** 2 / 1e-8
    assert power.mean() == pytest.approx(1.0, rel=0.03)
    assert np.mean(power > 1.0) == pytest.approx(np.exp(-1.0), abs=0.01)
    assert np.all(channels.gain_db == -80.0)
    assert not channels.los.any()
    assert np.all(draw(environment="iid").gain_db == -100.0)
    cross = np.mean(channels.estimate[..., 0] * channels.estimate[..., 1].conj()) / 1e-8
    assert abs(cross) < 0.03


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_gauss_markov(correlation):
    """Scattering is stationary with correlation c after one slot and c^2 after two."""
    channels = draw(
        user=np.zeros((40, 2)), environment="iid", slots=400, antennas=4, correlation=correlation
    )
    h = channels.estimate * 1e5
    for lag in (1, 2):
        measured = np.mean(h[lag:] * h[:-lag].conj())
        assert abs(measured - correlation**lag) < 0.02
    first, last = (np.mean(np.abs(h[slots]) ** 2) for slots in (slice(0, 40), slice(-40, None)))
    assert first == pytest.approx(1.0, abs=0.15)
    assert last == pytest.approx(1.0, abs=0.15)


def test_frozen_channels():
    """With correlation 1 nothing changes from slot to slot."""
    channels = draw(correlation=1.0)
    np.testing.assert_array_equal(channels.estimate[0], channels.estimate[4])


def test_line_of_sight_part():
    """In sight the mean over slots is a steering vector: equal entries in size, phases in a line.

    Its share of the power is kappa / (kappa + 1) with kappa of 9 dB on average; over 300 links the
    median of the estimated kappa lies near 9 dB, and its spread near 5 dB.
    """
    user = np.random.default_rng(5).uniform(-150.0, 150.0, (100, 2))
    channels = draw(user=user, slots=1500, antennas=4, los="los")
    gain = db_to_linear(channels.gain_db)
    mean = channels.estimate.mean(axis=0)  # (K, N, A)
    share = np.mean(np.abs(mean) ** 2, axis=2) / gain
    kappa_db = 10.0 * np.log10(share / np.maximum(1.0 - share, 1e-3))
    assert np.median(kappa_db) == pytest.approx(9.0, abs=1.0)
    assert np.subtract(*np.quantile(kappa_db, [0.75, 0.25])) == pytest.approx(6.74, abs=1.5)
    strong = kappa_db > 6.0
    step = mean[..., 1:] * mean[..., :-1].conj()
    step = (step / np.abs(step))[strong]
    assert np.all(np.abs(step - step[:, :1]) < 0.4)


def test_steering_follows_the_array():
    """Half-wavelength steps stay within pi cos(angle); a user behind the first looks the same.

    Users 1 and 2 stand in one direction of the node at 60 m and 120 m: with both heights equal
    their steering vectors are the same but for a phase. User 3 stands opposite: the conjugate.
    """
    user = np.array([[36.0, 48.0], [72.0, 96.0], [-36.0, -48.0]])
    channels = draw(
        NODES[:1], user, slots=4000, los="los", node_height_m=1.5, antennas=3, seeds=(8, 2, 3)
    )
    mean = channels.estimate.mean(axis=0)[:, 0]
    step = mean[:, 1] * mean[:, 0].conj()
    step /= np.abs(step)
    assert abs(step[0] - step[1]) < 0.2
    assert abs(step[0] - step[2].conj()) < 0.2
    assert abs(step[0] - 1.0) > 0.5  # an array that ignored the geometry would give 1


@pytest.mark.parametrize(
    ("environment", "los", "sigma_db", "distance_m"),
    [("umi", "los", 4.0, 10.0), ("umi", "nlos", 7.82, 13.0), ("uma", "nlos", 6.0, 50.0)],
)
def test_shadowing_statistics(environment, los, sigma_db, distance_m):
    """Standard deviation and correlation distance of TR 38.901: 1/e between users that far apart.

    Different nodes are independent, users on one spot have one shadow.
    """
    user = [[40.0, 50.0], [40.0 + distance_m, 50.0], [40.0, 50.0]]
    shadow = np.array(
        [
            draw(
                NODES[:2],
                user,
                seeds=(seed, 0, 0),
                environment=environment,
                los=los,
                slots=1,
                antennas=1,
            ).gain_db
            for seed in range(1000)
        ]
    )  # (seeds, K, N)
    shadow -= shadow.mean(axis=0)
    assert shadow.std() == pytest.approx(sigma_db, rel=0.06)
    assert np.corrcoef(shadow[:, 0, 0], shadow[:, 1, 0])[0, 1] == pytest.approx(0.3679, abs=0.09)
    assert abs(np.corrcoef(shadow[:, 0, 0], shadow[:, 0, 1])[0, 1]) < 0.1
    np.testing.assert_allclose(shadow[:, 0], shadow[:, 2], atol=0.01)


def test_line_of_sight_states():
    """Links are in sight with the probability of their distance, or as they are told."""
    user = np.tile([80.0, 0.0], (100, 1))
    in_sight = [
        draw(NODES[:1], user, seeds=(seed, 0, 0), slots=1, antennas=1).los.mean()
        for seed in range(40)
    ]
    assert np.mean(in_sight) == pytest.approx(los_probability("umi", 80.0), abs=0.03)
    assert draw(los="los").los.all()
    assert not draw(los="nlos").los.any()
    assert not draw(environment="simple").los.any()


@pytest.mark.parametrize("environment", ["umi", "uma", "simple", "iid"])
@pytest.mark.parametrize("error", [0.0, 1e-15, 1e-9, 0.1, 3.0])
def test_true_channels_lie_in_their_balls(environment, error):
    """The radius is relative to the norm of the estimate; no rounding steps outside, ever."""
    channels = draw(environment=environment, error=error, slots=40)
    norm = np.linalg.norm(channels.estimate, axis=3)
    np.testing.assert_array_equal(channels.error, error * norm)
    distance = np.linalg.norm(channels.true - channels.estimate, axis=3)
    assert np.all(distance <= channels.error)
    if error == 0.0:
        np.testing.assert_array_equal(channels.true, channels.estimate)
    if error >= 1e-9:
        assert distance.max() > 0.9 * error * norm.min()


def test_errors_are_uniform_in_the_ball():
    """In C^A a share of q^(2A) lies within q of the radius: A = 2, q = 0.8 gives 0.4096.

    A radius drawn uniformly would give 0.8, a ball of R^A in place of R^2A 0.64. The directions
    average to nothing and every coordinate has the mean square 1 / (A + 1).
    """
    estimate = np.full((20_000, 2), 3.0 - 4.0j)
    true = draw_true_channel(np.random.default_rng(4), estimate, np.full(20_000, 2.0))
    offset = (true - estimate) / 2.0
    radius = np.linalg.norm(offset, axis=1)
    assert np.mean(radius < 0.8) == pytest.approx(0.4096, abs=0.012)
    np.testing.assert_allclose(offset.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(np.mean(np.abs(offset) ** 2, axis=0), 1 / 3, atol=0.01)


@pytest.mark.parametrize("environment", ["umi", "uma", "simple", "iid"])
def test_same_seeds_same_channels(environment):
    """Bit for bit."""
    one, two = (draw(environment=environment, error=0.1, correlation=0.7) for _ in range(2))
    for name in ("estimate", "error", "true", "los", "gain_db"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_axes_vary_one_at_a_time():
    """Each generator and each parameter moves its own part and leaves the others bit for bit."""
    base = draw(error=0.1)
    other_fading = draw(error=0.1, seeds=(1, 9, 3))
    np.testing.assert_array_equal(base.gain_db, other_fading.gain_db)
    assert np.all(base.estimate != other_fading.estimate)
    other_error = draw(error=0.1, seeds=(1, 2, 9))
    np.testing.assert_array_equal(base.estimate, other_error.estimate)
    assert np.all(base.true != other_error.true)
    other_place = draw(error=0.1, seeds=(9, 2, 3))
    assert np.all(base.gain_db != other_place.gain_db)
    wider = draw(error=0.2)
    np.testing.assert_array_equal(base.estimate, wider.estimate)
    np.testing.assert_allclose(
        wider.true - wider.estimate, 2 * (base.true - base.estimate), rtol=1e-6, atol=1e-15
    )
    longer = draw(error=0.1, slots=9)
    np.testing.assert_array_equal(base.estimate, longer.estimate[:5])
    np.testing.assert_array_equal(base.true, longer.true[:5])
    np.testing.assert_array_equal(base.gain_db, draw(antennas=8).gain_db)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"slots": 0}, ["slots", "0", ">= 1"]),
        ({"antennas": 0}, ["antennas", "0", ">= 1"]),
        ({"environment": "rural"}, ["environment", "rural", "umi", "iid"]),
        ({"los": "sometimes"}, ["los", "sometimes", "mixture"]),
        ({"los": "los", "environment": "iid"}, ["los", "iid"]),
        ({"correlation": 1.1}, ["correlation", "1.1", "<= 1"]),
        ({"error": -0.1}, ["error", "-0.1", ">= 0"]),
        ({"error": np.nan}, ["error", "nan"]),
        ({"carrier_ghz": 0.0}, ["carrier_ghz", "0.0"]),
        ({"environment": "iid", "gain_db": 1e6}, ["gain_db", "1000000.0", "<= 500"]),
        ({"array_spacing_wavelengths": 0.0}, ["array_spacing_wavelengths", "> 0"]),
        ({"node": [[0.0, 0.0, 10.0]]}, ["node_position", "(1, 3)", "(1, 2)"]),
        ({"user": [[0.0, np.inf]]}, ["user_position[0, 1]", "inf"]),
        ({"user": np.empty((0, 2))}, ["user_position", "(0, 2)"]),
    ],
)
def test_bad_parameters(change, parts):
    """One line names the parameter, the value and what is allowed."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        draw(**change)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_channels_refuse_a_point_outside_its_ball():
    """A true channel a millionth beyond the radius is found, with its slot, user and node."""
    good = draw(error=0.1)
    true = good.true.copy()
    offset = true[2, 3, 1] - good.estimate[2, 3, 1]
    offset *= 1.000001 * good.error[2, 3, 1] / np.linalg.norm(offset)
    true[2, 3, 1] = good.estimate[2, 3, 1] + offset
    with pytest.raises(ValueError, match=r"true\[2, 3, 1\]: .* must be <= error"):
        Channels(good.estimate, good.error, true, good.los, good.gain_db)
    with pytest.raises(ValueError, match=r"estimate: shape is \(4, 3, 4\)"):
        Channels(good.estimate[0], good.error, good.true, good.los, good.gain_db)
    with pytest.raises(ValueError, match="read-only"):
        good.true[0] = 0.0
