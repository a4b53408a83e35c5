"""Learning curves: training logs read and drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finecast.compare.report.charts import figure, values_table
from finecast.compare.report.profiles import Steps
from finecast.compare.report.svg import Axis, Line, TickFormat, step_chart
from finecast.problem.arrays import FloatArray
from finecast.problem.files import FormatError, is_number, read_text

LEARNING_METRICS = ("held_out_gap", "delay", "mean_delay", "evaluation_delay", "return", "reward")
"""What a training log may say of the policy at a step; `finecast train` says the first."""

SECONDS = ("delay", "mean_delay", "evaluation_delay")
"""Those of them that are times; the gap is a share, and returns have the unit of their log."""


@dataclass(frozen=True, eq=False)
class Learning:
    """One training log.

    Parameters
    ----------
    label
        Name of the run.
    metric
        What was measured.
    step, value
        (n,) steps of the environment, and the metric at them.
    """

    label: str
    metric: str
    step: FloatArray
    value: FloatArray


def read_learning(path: Path) -> Learning:
    """Return the curve in a training log: one JSON object a line, with `step` and a metric.

    Raises
    ------
    FormatError
        The file cannot be read, or has no line with a step and one of `LEARNING_METRICS`.
    """
    steps: dict[str, list[float]] = {name: [] for name in LEARNING_METRICS}
    values: dict[str, list[float]] = {name: [] for name in LEARNING_METRICS}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise FormatError(path, f"line {number} is not valid JSON") from None
        if not isinstance(entry, dict) or not is_number(entry.get("step")):
            continue
        for name in LEARNING_METRICS:
            if is_number(entry.get(name)):
                steps[name].append(float(entry["step"]))
                values[name].append(float(entry[name]))
    for name in LEARNING_METRICS:
        if values[name]:
            label = path.parent.name if path.stem == "log" else path.stem
            return Learning(label or path.stem, name, np.array(steps[name]), np.array(values[name]))
    raise FormatError(path, f"no line with a step and one of {', '.join(LEARNING_METRICS)}")


def learning_figures(logs: Sequence[Learning]) -> str:
    """Draw training curves, one chart a metric."""
    html = []
    for metric in dict.fromkeys(log.metric for log in logs):
        chosen = [log for log in logs if log.metric == metric]
        steps = np.concatenate([log.step for log in chosen])
        values = np.concatenate([log.value for log in chosen])
        low, high = float(values.min()), float(values.max())
        room = 0.05 * (high - low) or 0.5
        form: TickFormat = "percent" if metric == "held_out_gap" else "ratio"
        unit = " in s" if metric in SECONDS else ""
        x = Axis("steps of training", float(steps.min()), float(steps.max()) or 1.0, False, "ratio")
        if x.high <= x.low:
            x = Axis("steps of training", x.low - 1.0, x.low + 1.0, False, "ratio")
        y = Axis(metric + unit, low - room, high + room, False, form)
        lines = [
            Line(log.label, i, log.step, log.value, float(log.value[0]))
            for i, log in enumerate(chosen)
        ]
        name = metric.replace("_", " ")
        caption = f"{name.capitalize()}{unit} during training, one line a log."
        svg = step_chart(f"learning-{metric}", name, caption, lines, x, y)
        svg = svg.replace(' class="series" data-m=', ' class="series" data-log=')
        curves = [Steps(log.step, log.value) for log in chosen]
        labels = [log.label for log in chosen]
        table = values_table(f"learning-{metric}", x, labels, curves, 1, form=form)
        html.append(figure(f"{name.capitalize()}.", caption, svg + table))
    return f'<div class="figures">{"".join(html)}</div>'
