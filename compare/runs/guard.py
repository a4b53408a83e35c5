"""Ends the processes of a run when the one that runs it dies, however it dies.

    python guard.py PROCESS

PROCESS starts this program and leads a process group. A process killed by `kill -9`, as when the
comparison itself is killed, cannot end its children any more; this one can. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl: the kernel sends a signal when the parent dies."""


def main() -> None:
    """Wait for the death of the parent, then kill its process group."""
    leader = int(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    while os.getppid() == leader:
        signal.sigwait({signal.SIGTERM})
    try:
        os.killpg(leader, signal.SIGKILL)
    except OSError:  # nobody is left
        return


if __name__ == "__main__":
    main()
