"""`finecast methods`: the registry."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import TYPE_CHECKING

import click

from finecast.cli.common import as_text, json_option, print_json, print_table, say
from finecast.problem.wording import printable

if TYPE_CHECKING:
    from finecast.solvers.option_texts import MethodOption
    from finecast.solvers.registry import Method


@click.command("methods")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the registered methods with their capabilities and sources.

    With NAME, say what that method does and what its options mean.
    """
    from finecast.solvers.registry import method_of, methods

    if name is not None:
        _one(method_of(name), as_json)
        return
    table = methods()
    if as_json:
        print_json({"methods": [dataclasses.asdict(method) for method in table.values()]})
        return
    from rich.console import Console
    from rich.table import Table

    rows = Table(title="methods", title_justify="left", show_lines=True)
    for heading in ("name", "knows", "also", "what it does"):
        rows.add_column(heading, no_wrap=heading == "name")
    for method in table.values():
        can = {
            "no bound": not method.gives_bound,
            "warm start": method.warm_starts,
            "training": method.needs_training,
            "GPU": method.uses_gpu,
            "areas": method.areas,
            f"extra {method.extra}": bool(method.extra),
        }
        rows.add_row(
            as_text(method.name),
            "all slots" if method.setting == "offline" else "the past",
            ", ".join(name for name, holds in can.items() if holds),
            as_text(f"{method.summary}\n").append(printable(method.reference), style="dim"),
        )
    Console().print(rows)


def _one(method: Method, as_json: bool) -> None:
    """Print one method and its options."""
    from finecast.solvers.option_texts import method_options

    options = method_options(method)
    if as_json:
        listed = [dataclasses.asdict(option) for option in options]
        print_json({**dataclasses.asdict(method), "options": listed})
        return
    knows = "all slots" if method.setting == "offline" else "the past and the forecast"
    rows = [("what it does", method.summary), ("knows", knows), ("source", method.reference)]
    if method.extra:
        rows.append(("needs", f"pip install 'finecast[{method.extra}]'"))
    print_table(method.name, [row for row in rows if row[1]])
    if options:
        shown = [(option.name, _option_text(option)) for option in options]
        print_table("options, as in --set NAME=VALUE", shown)
    else:
        say("no options")


def _option_text(option: MethodOption) -> str:
    default = option.default
    if default is inspect.Parameter.empty:
        told = "must be given"
    else:
        told = f"default {json.dumps(default) if default not in (None, ()) else 'none'}"
    return f"{option.meaning}\n{told}" if option.meaning else told
