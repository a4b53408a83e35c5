"""Independent tasks on several processes: of this machine, or of a Dask cluster.

A task is a function of its arguments alone, and tasks are fixed before anybody takes one. So the
answer is the same however many processes there are, and a task whose process is killed is done
again.
"""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

from finecast.solvers.deadline import GRAIN, NEVER, Deadline, count_work, grains_done
from finecast.solvers.extras import MissingExtra
from finecast.solvers.signals import die_with_parent

RESTARTS = 3
"""Times that the processes of a pool may be killed before there is no answer."""

SCHEDULER_TIMEOUT_S = 10
"""For the first answer of a Dask scheduler."""

TASKS_EACH = 4
"""Tasks of every process from one word of progress to the next."""

IDLE_S = 300
"""Seconds after which a process of the pool without tasks ends."""

Engine = Literal["local", "dask"]
Result = TypeVar("Result")


class Workers:
    """Who does tasks, in the order in which they are given.

    Parameters
    ----------
    count
        Processes of this machine, for engine `local`; 1 for the calling process alone.
    client
        Of a Dask cluster, whose workers are used in their place; None for none.

    Attributes
    ----------
    cpu_s
        CPU seconds of tasks that other processes did.
    """

    def __init__(self, count: int = 1, client: Any = None) -> None:
        self.count = count
        self.client = client
        self.cpu_s = 0.0

    @property
    def at_once(self) -> int:
        """Tasks to hand over at once where the progress is told in between."""
        if self.client is not None:
            threads = sum(self.client.nthreads().values())
            return TASKS_EACH * max(1, int(threads))
        return TASKS_EACH * self.count if self.count > 1 else 1

    def each(
        self,
        function: Callable[..., Result],
        tasks: Sequence[tuple[Any, ...]],
        deadline: Deadline = NEVER,
    ) -> list[Result]:
        """Return what a function says of every task, called as `function(*task, deadline)`.

        Counted work is shared out equally beforehand: a task that needs less leaves it unused.

        Parameters
        ----------
        function
            Of a module, so that other processes find it.
        tasks
            Arguments.
        deadline
            For all of them.

        Raises
        ------
        OSError
            The processes were killed time and again.
        """
        if not tasks:
            return []
        work = None if math.isinf(deadline.grains) else deadline.work_left() / len(tasks)
        if self.client is None and (self.count == 1 or len(tasks) == 1):
            return [function(*task, _limit(deadline, work)) for task in tasks]
        # Clocks of other machines agree about the time of day alone.
        until = None if math.isinf(deadline.at) else time.time() + deadline.left()
        jobs = [(function, task, until, work, deadline.phase) for task in tasks]
        try:
            done = self._by_dask(jobs) if self.client is not None else self._by_loky(jobs)
        except BaseException:
            # After Ctrl-C the rest is for the calling process.
            self.close()
            raise
        for _, grains, cpu_s, cut in done:
            count_work(grains * GRAIN)
            self.cpu_s += cpu_s
            for phase in cut:
                deadline.cut[phase] = None
        return [answer for answer, *_ in done]

    def _by_loky(self, jobs: list[tuple[Any, ...]]) -> list[Any]:
        from concurrent.futures import FIRST_COMPLETED, wait

        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        done: dict[int, Any] = {}
        for _ in range(RESTARTS + 1):
            pool = get_reusable_executor(
                self.count, timeout=IDLE_S, initializer=_begin, initargs=(os.getpid(),)
            )
            try:
                # No more at a time than go to the processes at once: with more waiting, the pool
                # ends with an error of its own at Ctrl-C.
                left = deque(index for index in range(len(jobs)) if index not in done)
                futures: dict[Any, int] = {}
                while left or futures:
                    while left and len(futures) < 2 * self.count:
                        index = left.popleft()
                        futures[pool.submit(_task, *jobs[index])] = index
                    for future in wait(futures, return_when=FIRST_COMPLETED).done:
                        done[futures.pop(future)] = future.result()
            except TerminatedWorkerError:
                continue
            return [done[index] for index in range(len(jobs))]
        raise ChildProcessError(f"processes of the pool were killed {RESTARTS + 1} times")

    def _by_dask(self, jobs: list[tuple[Any, ...]]) -> list[Any]:
        from distributed import KilledWorker

        futures = [self.client.submit(_task, *job, pure=False) for job in jobs]
        try:
            return [future.result() for future in futures]
        except KilledWorker as error:
            raise ChildProcessError(f"Dask's workers were killed time and again: {error}") from None
        finally:
            for future in futures:
                future.release()

    def close(self) -> None:
        """End the processes of this machine; the calling process does what comes after."""
        if self.client is None and self.count > 1:
            from joblib.externals.loky import get_reusable_executor

            with suppress(Exception):  # a pool that is broken is at its end
                get_reusable_executor(
                    self.count, timeout=IDLE_S, initializer=_begin, initargs=(os.getpid(),)
                ).shutdown(wait=True, kill_workers=True)
        self.count, self.client = 1, None


ALONE = Workers()
"""The calling process."""


@contextmanager
def workers_of(
    count: int = 1, engine: Engine = "local", scheduler: str | None = None
) -> Iterator[Workers]:
    """Give the workers, and end those of this machine.

    Parameters
    ----------
    count, engine, scheduler
        As in `check_workers`.

    Raises
    ------
    ValueError
        One of them is not allowed.
    OSError
        There is no scheduler, or it has no workers.
    """
    check_workers(count, engine, scheduler)
    if engine == "dask":
        with dask_client(scheduler) as client:
            yield Workers(client=client)
        return
    workers = Workers(count)
    try:
        yield workers
    finally:
        workers.close()


def check_workers(count: Any, engine: Any, scheduler: Any) -> None:
    """Refuse workers that are none.

    Parameters
    ----------
    count
        Processes of this machine, >= 1, for engine `local`.
    engine
        `local` or `dask`.
    scheduler
        Address of the Dask scheduler, for engine `dask`.

    Raises
    ------
    ValueError
        Says what is allowed.
    """
    if isinstance(count, bool) or not (isinstance(count, int) and count >= 1):
        raise ValueError(f"workers: {count!r} is not allowed, must be a whole number >= 1")
    if engine not in ("local", "dask"):
        raise ValueError(f"engine: {engine!r} is not allowed, must be local or dask")
    if engine == "dask":
        check_address(scheduler)
        if count > 1:
            raise ValueError("workers: is for engine local, Dask has its own workers")
    elif scheduler is not None:
        raise ValueError("scheduler: is for engine dask")


def check_address(scheduler: Any) -> None:
    """Refuse what is no address of a Dask scheduler.

    Raises
    ------
    ValueError
        Says what is expected.
    """
    text = scheduler if isinstance(scheduler, str) else ""
    if not re.fullmatch(r"(\w+://)?[^\s/]+:\d{1,5}", text):
        given = "none is given" if scheduler is None else f"{scheduler!r} is not allowed"
        raise ValueError(f"scheduler: {given}, expected an address as in tcp://host:8786")


@contextmanager
def dask_client(scheduler: str | None) -> Iterator[Any]:
    """Give a client of the Dask cluster with a scheduler's address.

    Raises
    ------
    ValueError
        It is no address.
    MissingExtra
        Dask is not installed.
    ConnectionError
        There is no scheduler, or it has no workers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtra("engine dask", "dask") from None
    check_address(scheduler)
    assert scheduler is not None
    refuse_silence(scheduler)
    try:
        client = Client(scheduler, timeout=SCHEDULER_TIMEOUT_S, set_as_default=False)
    except OSError as error:
        raise ConnectionError(f"no Dask scheduler at {scheduler}: {error}") from None
    with client:
        if not client.nthreads():
            raise ConnectionError(f"the Dask scheduler at {scheduler} has no workers")
        yield client


def refuse_silence(scheduler: str) -> None:
    """Refuse an address where nothing speaks Dask's language.

    Dask's own client waits for minutes for a greeting from what accepts its connection.

    Raises
    ------
    ConnectionError
        There is no greeting within `SCHEDULER_TIMEOUT_S`.
    """
    import asyncio

    from distributed.core import connect

    async def greet() -> None:
        comm = await asyncio.wait_for(
            connect(scheduler, timeout=SCHEDULER_TIMEOUT_S), SCHEDULER_TIMEOUT_S
        )
        comm.abort()

    try:
        asyncio.run(greet())
    except Exception as error:  # whatever comes over the wire
        what = str(error) or f"no answer within {SCHEDULER_TIMEOUT_S} s"
        raise ConnectionError(f"no Dask scheduler at {scheduler}: {what}") from None


def _begin(parent: int) -> None:
    """Prepare a process of the pool: Ctrl-C is for the caller, with whom it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent == os.getppid():
        die_with_parent(parent)


def _limit(deadline: Deadline, work: float | None) -> Deadline:
    """Return the deadline with counted work of its own."""
    if work is None:
        return deadline
    return Deadline(deadline.at, Deadline.after(None, work).grains, deadline.phase, deadline.cut)


def _task(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    until: float | None,
    work: float | None,
    phase: str,
) -> tuple[Any, int, float, tuple[str, ...]]:
    """Do a task; return the answer, its grains of work and CPU seconds, and the phases cut."""
    grains, cpu_s = grains_done(), time.process_time()
    left = None if until is None else max(0.0, until - time.time())
    deadline = Deadline.after(left, work).of(phase)
    answer = function(*arguments, deadline)
    return (
        answer,
        grains_done() - grains,
        time.process_time() - cpu_s,
        tuple(deadline.cut),
    )
