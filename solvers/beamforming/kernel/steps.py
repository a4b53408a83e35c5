"""The schedule that the batched and the small search share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Descent:
    """Newton steps with a falling temperature.

    Attributes
    ----------
    steps
        Number of steps.
    cut
        Factor on the temperature after every step.
    floor
        Least temperature.
    """

    steps: int
    cut: float
    floor: float

    @property
    def last_quarter(self) -> int:
        """First step of the last quarter, in which beams are judged."""
        return self.steps - max(1, self.steps // 4)

    def cooled(self, temperature: float) -> float:
        """Return the temperature of the next step."""
        return max(temperature * self.cut, self.floor)


FIRST_TEMPERATURE = 0.1
"""Temperature of the first Newton step; u is scaled to at most 1."""

FIRST_LEVEL = 0.9
"""Amplitude norm(w_n) that ENs with errors start from, of at most 1."""

FIRST = Descent(14, 0.6, 1e-5)
"""The first try, from equal phases only. On UMi channels more than half of the problems end there,
proven optimal."""

SCREEN = Descent(10, 0.7, 1e-5)
"""The full search, first stage: twice the `starts` candidates are screened."""

CARRY = Descent(6, 0.6, 1e-5)
"""Second stage: the better half goes on. A faster cut in these two stages loses good candidates, as
measured on UMi and equal-gain Rayleigh channels."""

FINISH = Descent(16, 0.45, 1e-9)
"""Third stage: the best candidate is finished in double precision."""

SETTLE = Descent(7, 0.15, 1e-9)
"""Newton's method on weights and phases together, in double precision."""

LONGEST = 0.95
"""A step takes at most this share off a number that must stay positive."""

COUPLING = 0.999
"""Share of the coupling between phases that Newton's method sees. It is below 1 because turning all
phases together changes nothing, which would make the system singular."""

TURN = 0.5
"""Radians by which a coupled step may turn a phase."""

CLOSED = 1e-6
"""Relative distance on u between beams and their bound at which a problem counts as solved."""

PHASED = 1e-7
"""Relative distance on u between beams and the dual value for their phases at which to stop."""

NEAR = 1e-3
"""How far from singular the relaxation's dual matrix is taken when drawing starts from it."""

FEIGNED = 0.1
"""Share of the channels' norms that errors are raised to in the search for starts at partial power.
One such start is worth about eight random ones, at 0.05 and 0.2 as at 0.1."""

SMALL = 3
"""Batches up to this size are solved one problem at a time when on the CPU."""

STRONGEST = 1e6
"""Amplitudes of a user above this multiple of the weakest user's are capped (120 dB) in the search;
the certificate leaves such a user out, which keeps the bound a bound."""

MUTE = 100.0
"""Errors are capped at this multiple of the larger of the user's strongest amplitude and 1: less
error is a relaxation, so bounds stay bounds, and beams are judged by the errors as given."""

TINY = 1e-30
"""Below any meaningful amplitude, above the underflow of float32."""
