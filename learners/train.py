"""One call to train a learner; its best policy is then the method `policy`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from finecast.learners.runs.config import run_config
from finecast.learners.runs.training import Trained
from finecast.learners.runs.training import train as train_run
from finecast.solvers.result import Callback
from finecast.solvers.workers import Engine, workers_of


def train(
    scenarios: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    learner: str = "maasn-da",
    *,
    folder: str | os.PathLike[str],
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    callback: Callback | None = None,
    workers: int = 1,
    engine: Engine = "local",
    scheduler: str | None = None,
    **options: Any,
) -> Trained:
    """Train a learner on draws of scenarios.

    The folder then holds the best policy on held-out draws. The method `policy` plays it.

    Parameters
    ----------
    scenarios
        Names of shipped scenarios or paths of TOML files. Several of equal N, K and T make a
        mixture.
    learner
        Registered name (`finecast train --list`).
    folder
        For checkpoints and the log; made if it is not there.
    steps
        Updates; None for the default of the learner, which says what an update is.
    seed
        Of draws, networks and exploration.
    resume
        Go on from the newest state in the folder; start if there is none.
    callback
        Receives the progress of the run.
    workers, engine, scheduler
        Who makes the draws, as in `finecast.solve`; the run is the same.
    **options
        Further options as in the TOML of a run (`finecast.learners.runs.config.RunConfig`): by
        name, and the tables `source` (of the draws) and `options` (of the learner).

    Raises
    ------
    FormatError
        A scenario or checkpoint is bad, or the disk is full; earlier checkpoints are whole.
    KeyboardInterrupt
        Ctrl-C, after the step and with its state written; `resume` goes on from it.
    LossNotFiniteError
        A loss is not finite.
    ValueError
        An option is not allowed, or the folder holds another run.

    Examples
    --------
    >>> trained = finecast.train("tiny", "dcg", folder="runs/x")  # doctest: +SKIP
    >>> finecast.solve(instance, "policy", checkpoint=trained.checkpoint)  # doctest: +SKIP
    """
    names = [scenarios] if isinstance(scenarios, str | os.PathLike) else scenarios
    table: dict[str, Any] = {"learner": learner, "seed": seed, **options}
    table["scenarios"] = [os.fspath(name) for name in names]
    if steps is not None:
        table["steps"] = steps
    run = run_config(table)
    with workers_of(workers, engine, scheduler) as crew:
        return train_run(run, folder, resume=resume, callback=callback, workers=crew)
