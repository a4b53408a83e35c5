"""What ends a search or a process from outside: Ctrl-C, and the death of a parent.

A search may be one of many in somebody's loop. There Ctrl-C has to end the loop, so an ordinary
`KeyboardInterrupt` passes through every method. The command line solves once: it has its Ctrl-C
raise `SearchInterrupt`, which methods turn into the best answer so far.

An exception amidst the import of a library leaves half of it behind, and torch ends the process. So
the command line's Ctrl-C waits until the import is done.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 0.05
"""After which Ctrl-C is tried again that came amidst an import."""

IMPORTING = "<frozen importlib._bootstrap>"
"""File name of the frames in which Python imports."""


class SearchInterrupt(KeyboardInterrupt):
    """Ctrl-C that a search answers with the best it has; elsewhere it ends the program as usual."""


@contextmanager
def ctrl_c_keeps_the_best() -> Iterator[None]:
    """Have Ctrl-C raise `SearchInterrupt` inside; only the main thread can, and only it does."""
    usual = signal.getsignal(signal.SIGINT)
    # A process in the background ignores Ctrl-C, and a program with a handler of its own keeps it.
    if threading.current_thread() is not threading.main_thread() or usual not in (
        signal.default_int_handler,
        interrupt_between_imports,
    ):
        yield
        return
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _raise(number: int, frame: FrameType | None) -> None:
    if not _after_the_import(frame):
        raise SearchInterrupt


def interrupt_between_imports(number: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt`: a handler of Ctrl-C for programs that import as they go."""
    if not _after_the_import(frame):
        raise KeyboardInterrupt


def _after_the_import(frame: FrameType | None) -> bool:
    """Have the signal come again if the frame is within an import; return whether it is."""
    while frame is not None and frame.f_code.co_filename != IMPORTING:
        frame = frame.f_back
    if frame is None:
        return False
    again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
    return True


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies; Linux only.

    Parameters
    ----------
    parent
        Its process number, to see whether it is dead already; None where that cannot matter.
    """
    if sys.platform != "linux":
        return
    import ctypes

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
