"""Pools of processes that end quietly, whatever ends the caller."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


@contextmanager
def ended_quietly(
    results: Generator[Result, None, None],
) -> Iterator[Generator[Result, None, None]]:
    """Give the results of joblib's pool; at the end, tasks that are left are dropped in silence.

    joblib warns of them where the caller stops between two results, as by Ctrl-C.
    """
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.close()
