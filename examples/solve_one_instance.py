"""Solve one instance in Python: draw it, solve it, read the answer, judge it again, keep it.

Run: python examples/solve_one_instance.py [SCENARIO] [SEED]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import finecast

scenario = sys.argv[1] if len(sys.argv) > 1 else "data/scenarios/tiny.toml"
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0

# A scenario is a class of instances; a seed picks one of them, the same on every machine.
instance = finecast.read_scenario(scenario).generate(seed)
print(f"{instance.name}: {instance.nodes} nodes, {instance.users} users, {instance.blocks} blocks")

result = finecast.solve(instance, time_limit=20.0)
assert result.evaluation is not None, "some user cannot be served at any rate"
assert result.solution is not None
print(f"guaranteed delay  {result.delay:.6g} s")
print(f"lower bound       {result.lower_bound:.6g} s ({result.bound_kind})")
print(f"at most           {100 * result.gap:.4f} % above the optimum")
print(f"realised delay    {result.evaluation.realised_delay:.6g} s over the true channels")

# The decisions: who caches what, who receives what from where, and what is sent when.
solution = result.solution
for n in range(instance.nodes):
    names = [instance.library.block_names[j] for j in solution.cache[0, n].nonzero()[0]]
    print(f"node {n} caches {', '.join(names) or 'nothing'}")
for i, users in enumerate(solution.broadcasts[0].users):
    nodes = solution.broadcasts[0].nodes[i].nonzero()[0].tolist()
    print(f"message {i}: from nodes {nodes} to users {users.nonzero()[0].tolist()}")

# Files carry no code; anybody can judge a solution against its instance.
with tempfile.TemporaryDirectory() as folder:
    finecast.write_instance(Path(folder) / "instance.npz", instance)
    finecast.write_solution(Path(folder) / "solution.npz", solution)
    again = finecast.evaluate(
        finecast.read_instance(Path(folder) / "instance.npz"),
        finecast.read_solution(Path(folder) / "solution.npz"),
    )
print(f"judged from files {again.delay:.6g} s, feasible: {'yes' if again.feasible else 'no'}")
