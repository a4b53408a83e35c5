"""Solve one instance in Python: draw it, solve it, read the answer, keep it and judge it again.

Run: python3 examples/solve_one_instance.py [SCENARIO] [SEED]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import finecast

scenario = sys.argv[1] if len(sys.argv) > 1 else "tiny"
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0

# A scenario describes a class of instances. A seed picks one of them, the same on every machine.
instance = finecast.read_scenario(scenario).generate(seed)
print(f"{instance.name}: {instance.nodes} nodes, {instance.users} users, {instance.blocks} blocks")

result = finecast.solve(instance, time_limit=20.0)
assert result.evaluation is not None, "some user cannot be served at any rate"
assert result.solution is not None
print(result.summary())  # `result.as_dict()` has the same for programs
print(f"guaranteed delay {result.delay:.6g} s")

# The solution says which node caches what, and which nodes send each message to which users.
solution = result.solution
for n in range(instance.nodes):
    names = [instance.library.block_names[j] for j in solution.cache[0, n].nonzero()[0]]
    print(f"node {n} caches {', '.join(names) or 'nothing'}")
for i, users in enumerate(solution.broadcasts[0].users):
    nodes = solution.broadcasts[0].nodes[i].nonzero()[0].tolist()
    print(f"message {i}: from nodes {nodes} to users {users.nonzero()[0].tolist()}")

# Files carry no code, so anybody can judge a solution against its instance.
with tempfile.TemporaryDirectory() as folder:
    finecast.write_instance(Path(folder) / "instance.npz", instance)
    finecast.write_solution(Path(folder) / "solution.npz", solution)
    judged = finecast.evaluate(
        finecast.read_instance(Path(folder) / "instance.npz"),
        finecast.read_solution(Path(folder) / "solution.npz"),
    )
print(f"judged from files {judged.delay:.6g} s, feasible: {'yes' if judged.feasible else 'no'}")
