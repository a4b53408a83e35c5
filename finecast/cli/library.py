"""`finecast library`: parameter blocks of real families or of checkpoints on disk."""

from __future__ import annotations

import click

from finecast.cli.common import (
    json_option,
    output_file,
    print_json,
    print_table,
    progress_bar,
)
from finecast.cli.describe import describe_library, library_rows


@click.command("library")
@click.argument("family", nargs=-1)
@click.option("--from-checkpoints", help="Folder of .safetensors files or folders of shards.")
@click.option("-o", "--output", required=True, help="Library file to write (.json).")
@click.option(
    "--variants",
    type=click.IntRange(1, 10_000),
    default=6,
    show_default=True,
    help="Task models per family.",
)
@click.option(
    "--freeze-ratio",
    type=float,
    multiple=True,
    help="Share of the backbone that is frozen, from the bottom; repeat it for nested sharing.",
)
@click.option(
    "--granularity",
    default="block",
    show_default=True,
    help="stage, block (residual block or layer), or a number of them per parameter block.",
)
@click.option("--dtype", default="float32", show_default=True, help="float32 or float16.")
@click.option("--classes", type=int, default=1000, show_default=True, help="Outputs of the head.")
@click.option("--lora-rank", type=int, help="Llama: rank of each task's adapter.")
@click.option("--lora-targets", help="Llama: qv, qkvo or all.")
@json_option
def command(
    family: tuple[str, ...],
    from_checkpoints: str | None,
    output: str,
    variants: int,
    freeze_ratio: tuple[float, ...],
    granularity: str,
    dtype: str,
    classes: int,
    lora_rank: int | None,
    lora_targets: str | None,
    as_json: bool,
) -> None:
    """Build a library from FAMILY..., such as `vit-b-16 resnet-101`, or from checkpoints."""
    from finecast.problem.library import combine, write_library

    if bool(family) == (from_checkpoints is not None):
        raise click.UsageError("give either families or --from-checkpoints")
    target = output_file(output, [".json"])
    if from_checkpoints is not None:
        from finecast.problem.checkpoints import library_from_checkpoints
        from finecast.solvers.result import Progress

        with progress_bar() as tell:
            library = library_from_checkpoints(
                from_checkpoints,
                progress=lambda done, total: tell(Progress("bytes read", done, total)),
            )
    else:
        from finecast.problem.families import FamilySpec, build_family

        library = combine(
            [
                build_family(
                    FamilySpec(
                        backbone=name,
                        variants=variants,
                        freeze_ratio=freeze_ratio or None,
                        granularity=int(granularity) if granularity.isdecimal() else granularity,
                        dtype=dtype,
                        classes=classes,
                        lora_rank=lora_rank,
                        lora_targets=lora_targets,
                    )
                )
                for name in family
            ]
        )
    write_library(target, library)
    described = describe_library(library)
    if as_json:
        print_json({"file": str(target), **described})
    else:
        print_table(str(target), library_rows(described))
