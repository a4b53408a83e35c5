"""Ctrl-C for processes that tests start."""

from __future__ import annotations

import signal


def interruptible() -> None:
    """Take SIGINT as a process in the foreground does; for `preexec_fn`.

    A shell starts what is in the background with SIGINT ignored, and its children inherit that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
