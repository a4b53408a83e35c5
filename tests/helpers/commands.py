"""The command line as users meet it, in processes of their own that begin with the libraries there.

A process takes up to two seconds to import what a command needs. These are forks of a server that
has imported it: each has its own memory, files, arguments, output and end, as any other process.
How it is to start from nothing is for `finecast/test_install.py`, and for tests of single imports.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from repository import ROOT

LIBRARIES = (
    "matplotlib.pyplot",
    "pandas",
    "torch",
    "finecast.compare",
    "finecast.learners",
    "finecast.problem.scenario",
    "finecast.solvers.beamforming.kernel.multicast",
    "finecast.solvers.solve",
)

SECONDS = 120
"""What a command may take."""


def finecast(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    words = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        task = {
            "words": words,
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ),
            "files": [os.devnull, str(out), str(err)],
        }
        process = server()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


@functools.cache
def server() -> subprocess.Popen[str]:
    """Return the server of this process, which ends with it."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    atexit.register(process.communicate)
    return process


def serve() -> None:
    """Answer each task, a line of JSON, by the exit code of the command."""
    sys.path[0] = ""  # as with python -c
    for name in LIBRARIES:
        import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(words: list[str], folder: str, environment: dict[str, str], files: list[str]) -> NoReturn:
    """Be the command, and end as Python does."""
    signal.alarm(SECONDS)
    for descriptor, file in enumerate(files):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if descriptor else os.O_RDONLY
        os.dup2(os.open(file, flags, 0o600), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *words]
    code: Any = 0
    try:
        import_module("finecast.cli.main").main()
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    serve()
