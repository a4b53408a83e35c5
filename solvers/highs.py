"""HiGHS without a word on the standard output."""

from __future__ import annotations

import highspy


class QuietHighs(highspy.Highs):  # type: ignore[misc]
    """HiGHS, silent from its first call on.

    The constructor of highspy starts the callbacks, which prints a banner before the caller can
    turn the output off.
    """

    def enableCallbacks(self) -> None:  # noqa: N802
        """Turn the output off, then do what the constructor asked for."""
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()
