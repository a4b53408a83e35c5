"""Compare two methods on the same instances, by differences and not by two averages.

Instances differ far more than methods do, so the difference on each instance counts. Gaps are to
the best certified bound known for the instance, whichever method found it.

Run: python3 examples/compare_two_methods.py [METHOD METHOD] [SCENARIO]
"""

from __future__ import annotations

import sys

import numpy as np

import finecast

methods = sys.argv[1:3] if len(sys.argv) > 2 else ["rolling", "lru"]
path = sys.argv[3] if len(sys.argv) > 3 else "tiny"

scenario = finecast.read_scenario(path)
scenario = scenario.with_(slots=4)
instances = [scenario.generate(seed) for seed in range(8)]

delay = np.empty((2, len(instances)))
bound = np.zeros(len(instances))
for i, instance in enumerate(instances):
    for m, method in enumerate(methods):
        result = finecast.solve(instance, method)
        delay[m, i] = result.delay
        bound[i] = max(bound[i], result.lower_bound)

gap = delay / bound - 1.0
for m, method in enumerate(methods):
    print(f"{method:>12}: {100 * gap[m].mean():.2f} % above the bound on average")

# A bootstrap over instances gives the interval of the mean relative difference.
difference = delay[0] / delay[1] - 1.0
draws = np.random.default_rng(0).integers(0, len(instances), (2000, len(instances)))
low, high = np.quantile(difference[draws].mean(axis=1), [0.025, 0.975])
print(
    f"{methods[0]} against {methods[1]}: {100 * difference.mean():+.2f} % delay "
    f"(95 % interval {100 * low:+.2f} to {100 * high:+.2f} %), "
    f"faster on {(difference < 0).sum()} of {len(instances)} instances"
)
