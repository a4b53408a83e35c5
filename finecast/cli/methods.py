"""`finecast methods`: the registry."""

from __future__ import annotations

import dataclasses

import click

from finecast.cli.common import json_option, print_json


@click.command("methods")
@json_option
def command(as_json: bool) -> None:
    """List the registered methods with their capabilities and sources."""
    from solvers.registry import methods

    table = methods()
    if as_json:
        print_json({"methods": [dataclasses.asdict(method) for method in table.values()]})
        return
    from rich.console import Console
    from rich.table import Table

    rows = Table(title="methods", title_justify="left")
    for heading in ("name", "setting", "bound", "warm start", "what it does", "source"):
        rows.add_column(heading)
    for method in table.values():
        rows.add_row(
            method.name,
            method.setting,
            "yes" if method.gives_bound else "no",
            "yes" if method.warm_starts else "no",
            method.summary,
            method.reference,
        )
    Console().print(rows)
