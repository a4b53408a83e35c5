"""A solve loads what it needs, and no more."""

from __future__ import annotations

import subprocess
import sys


def test_the_default_method_loads_no_modelling_layer(tmp_path):
    """Pyomo and CVXPY take a second each to load; only the methods built on them may."""
    program = (
        "import sys, finecast\n"
        "finecast.solve(finecast.read_scenario('tiny').generate(seed=0))\n"
        "print(sorted({'pyomo', 'cvxpy', 'matplotlib', 'pyarrow'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


def test_the_smallest_instance_is_solved_without_torch(tmp_path):
    """A second and 200 MB to load: only batches, learners and spatial delivery are worth that."""
    program = (
        "import sys\n"
        "from finecast.cli.main import main\n"
        "sys.argv = ['finecast', 'solve', 'tiny', '--json']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code\n"
        "print('torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines()[-1] == "False"
