"""What the options of a method mean, from the docstring of what it runs."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from finecast.solvers.registry import Method

COMMON = {
    "beamforming": "how beams are found: multicast, sca, sdr, sprocedure, wmmse or matched",
    "restrict": "names of restrictions by commas, as in coarse,no-comp; empty for the full system",
    "rate_cache": "folder that keeps rates between runs",
    "write": "file (.lp or .mps) for the placement model at the rates of the answer",
    "beam_nodes": "boxes of arguments per message for proving beams; 0 for none",
}
"""Options of many methods, which no docstring of one method explains."""


@dataclass(frozen=True)
class MethodOption:
    """An option of a method.

    Attributes
    ----------
    name, default
        As given with `--set NAME=VALUE`.
    meaning
        One or more sentences; empty where the method says nothing of it.
    """

    name: str
    default: Any
    meaning: str


def method_options(method: Method) -> list[MethodOption]:
    """Return the options of a method with their meaning and default, its own ones first.

    Raises
    ------
    MissingExtra
        The packages that the method needs are not installed.
    ValueError
        The method cannot be imported.
    """
    texts = {**COMMON, **described(inspect.getdoc(method.load()) or "")}
    return [
        MethodOption(name, default, texts.get(name, ""))
        for name, default in method.options().items()
    ]


def described(doc: str) -> dict[str, str]:
    """Return what a docstring in the style of NumPy says of each parameter or attribute.

    A line that names several, as in `steps, batch`, gives all of them its text.
    """
    texts: dict[str, str] = {}
    sections = re.split(r"^(\w[\w ]*)\n-{3,}\n", doc, flags=re.MULTILINE)
    for title, body in zip(sections[1::2], sections[2::2], strict=True):
        if title not in ("Parameters", "Attributes"):
            continue
        names: list[str] = []
        for line in body.splitlines():
            if line and not line[0].isspace():
                names = [name.strip() for name in line.split(":")[0].split(",")]
                texts.update(dict.fromkeys(names, ""))
            else:
                for name in names:
                    texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts
