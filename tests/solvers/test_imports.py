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
