"""The error of synthetic episodes: held-out error of the predictor, bias by synthetic share.

    python3 benchmarks/learning/bias.py --scenario periodic --real 16

The predictor is fitted to `--real` episodes and judged on others. For the bias of the mean delay,
`rolling` plays real episodes and their imagined continuations. Both have rates in closed form.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import torch
from draws import FIRST_SEED, scenario_file

from finecast.learners.augmentation.error import held_out_error, measured_bias
from finecast.learners.augmentation.predictor import fit_predictor
from finecast.learners.augmentation.synthetic import requests_and_reach
from finecast.learners.world.baselines import Rolling
from finecast.problem.scenario import read_scenario

EXPONENT = 0.5
"""c of the closed form, for real and imagined episodes."""


def main() -> None:
    """Measure and print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--scenario", default="slow-60")
    parser.add_argument("--real", type=int, default=16, help="episodes the predictor sees")
    parser.add_argument("--held-out", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    scenario = read_scenario(scenario_file(given.scenario))
    train = [scenario.generate(seed) for seed in range(given.real)]
    held = [scenario.generate(FIRST_SEED + seed) for seed in range(given.held_out)]
    generator = torch.Generator().manual_seed(given.seed)
    predictor = fit_predictor(*requests_and_reach(train), train[0].models, generator)
    biases, by_slot = measured_bias(predictor, held, Rolling(), generator, exponent=EXPONENT)
    figures = {
        "scenario": given.scenario,
        "real": given.real,
        "error": asdict(held_out_error(predictor, train, held)),
        "bias": [asdict(bias) for bias in biases],
        "by_slot": [round(float(x), 5) for x in by_slot],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
