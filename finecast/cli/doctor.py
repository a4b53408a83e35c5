"""`finecast doctor`: what finecast runs on, and whether it works here."""

from __future__ import annotations

import dataclasses
import sys

import click

from finecast.cli.common import json_option, print_json, print_table, say


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Say what finecast runs on, and test it for some seconds; exit code 1 if a check fails."""
    from finecast.doctor import self_test, surroundings

    around = surroundings()
    if not as_json:
        threads = ", ".join(f"{name}={n}" for name, n in around["thread_limits"].items())
        missing = [name for name, there in around["extras"].items() if not there]
        there = [name for name, there in around["extras"].items() if there]
        rows = [
            ("processor", f"{around['cpu']}, {around['cores']} cores"),
            ("memory", f"{around['memory_bytes'] / 1e9:.1f} GB"),
            ("system", around["os"]),
            ("threads", threads or "no limit set"),
            ("GPU", around["gpu"] or "none that torch can use"),
            ("versions", ", ".join(f"{name} {v}" for name, v in around["versions"].items())),
            ("extras installed", ", ".join(there) or "none"),
        ]
        if missing:
            names = ", ".join(missing)
            rows.append(("not installed", f"{names}: pip install 'finecast[NAME]'"))
        print_table("finecast", rows)
    checks = []
    for check in self_test():
        checks.append(check)
        if not as_json:
            say(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.said}")
    failed = [check.name for check in checks if not check.passed]
    if as_json:
        listed = [dataclasses.asdict(check) for check in checks]
        print_json({**around, "checks": listed, "passed": not failed})
    elif failed:
        say(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    else:
        say(f"all {len(checks)} checks passed")
    if failed:
        sys.exit(1)
