"""`finecast methods`: the registry."""

from __future__ import annotations

import dataclasses

import click

from finecast.cli.common import as_text, json_option, print_json
from finecast.problem.wording import printable


@click.command("methods")
@json_option
def command(as_json: bool) -> None:
    """List the registered methods with their capabilities and sources."""
    from finecast.solvers.registry import methods

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
