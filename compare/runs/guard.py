"""Ends the processes of a run when the one that runs it dies, however it dies.

    python guard.py PROCESS

PROCESS starts this program and leads a process group. A process killed by `kill -9`, as when the
comparison itself is killed, cannot end its children any more; this one can. What has left the group
is found by the variable `RUN` of the environment, which all inherit that a run starts. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress

RUN = "FINECAST_RUN"
"""Variable of the environment that tells the processes of a run from all others."""

SWEEPS = 100
"""Most looks for processes that are left; one that starts others is soon overtaken."""

SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl: the kernel sends a signal when the parent dies."""


def main() -> None:
    """Wait for the death of the parent, then kill its process group."""
    leader = int(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    while os.getppid() == leader:
        signal.sigwait({signal.SIGTERM})
    run = f"{RUN}={os.environ[RUN]}".encode()
    for _ in range(SWEEPS):
        left = processes_with(run)
        for process in left:
            with suppress(OSError):  # it has just ended
                os.kill(process, signal.SIGKILL)
        if not left:
            break
        time.sleep(0.01)
    with suppress(OSError):  # nobody is left
        os.killpg(leader, signal.SIGKILL)  # this one is in a group of its own


def processes_with(variable: bytes) -> list[int]:
    """Return the other processes that were started with a variable, as in `NAME=VALUE`."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as environment:
                if variable in environment.read().split(b"\0"):
                    found.append(int(name))
        except OSError:  # of another user, or ended
            continue
    return found


if __name__ == "__main__":
    main()
