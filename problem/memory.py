"""Memory that a process may use: too little is said at once, before libraries hang for want of it.

The linear algebra libraries start threads while they are imported. Where these get no memory, the
import waits for them for ever.
"""

from __future__ import annotations

LEAST_ADDRESS_SPACE = 2**30
"""Bytes of address space (`ulimit -v`) with which all libraries can be imported."""


def refuse_little_memory() -> None:
    """Refuse to go on with less address space than the libraries need.

    Raises
    ------
    MemoryError
        The limit is below `LEAST_ADDRESS_SPACE`.
    """
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise MemoryError(
            f"this process may use {limit} bytes of address space (ulimit -v), finecast needs at "
            f"least {LEAST_ADDRESS_SPACE}"
        )
