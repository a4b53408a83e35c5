"""`finecast library`: parameter blocks of real families, of checkpoints or of configurations."""

from __future__ import annotations

import click

from finecast.cli.common import (
    json_option,
    output_file,
    print_json,
    print_table,
    progress_bar,
)
from finecast.cli.describe import describe_library, library_rows, model_rows

OF_FAMILIES = {"variants", "freeze_ratio", "dtype", "classes", "lora_rank", "lora_targets"}
"""Options that say nothing of checkpoints or configurations."""

LARGEST_MB = 1e12
"""Upper limit of --max-block-mb, of the bytes that a library may have."""


@click.command("library")
@click.argument("family", nargs=-1)
@click.option(
    "--from-checkpoints",
    help="Folder of .safetensors files, model folders or a hub cache, or one model's own folder.",
)
@click.option(
    "--from-config",
    help="Folder with a folder for each model, of its config.json or adapter_config.json alone. "
    "Needs pip install 'finecast[configs]'.",
)
@click.option(
    "--frozen",
    help="Configurations: what variants share with their base: all, embeddings, or the first so "
    "many layers. Adapters leave all of it frozen.",
)
@click.option("-o", "--output", help="Library file to write (.json); without it, only show.")
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
    help="stage, block (residual block or layer), or a number of them per parameter block; "
    "for --from-checkpoints and --from-config also largest: all that the same models share.",
)
@click.option(
    "--max-block-mb",
    type=float,
    help="Checkpoints, configurations: cut blocks above so many MB (10^6 bytes).",
)
@click.option("--dtype", default="float32", show_default=True, help="float32 or float16.")
@click.option("--classes", type=int, default=1000, show_default=True, help="Outputs of the head.")
@click.option("--lora-rank", type=int, help="Llama: rank of each task's adapter.")
@click.option("--lora-targets", help="Llama: qv, qkvo or all.")
@json_option
def command(
    family: tuple[str, ...],
    from_checkpoints: str | None,
    from_config: str | None,
    frozen: str | None,
    output: str | None,
    variants: int,
    freeze_ratio: tuple[float, ...],
    granularity: str,
    max_block_mb: float | None,
    dtype: str,
    classes: int,
    lora_rank: int | None,
    lora_targets: str | None,
    as_json: bool,
) -> None:
    """Build a library from FAMILY..., such as `vit-b-16 resnet-101`, or from models.

    --from-checkpoints reads weights and finds what is shared by content. --from-config reads
    configurations alone, of any architecture of Hugging Face transformers.

    It is shown, and written with -o.
    """
    from finecast.problem.library import combine, write_library

    sources = {"families": bool(family), "--from-checkpoints": from_checkpoints is not None}
    sources["--from-config"] = from_config is not None
    given = [source for source, is_given in sources.items() if is_given]
    if len(given) != 1:
        raise click.UsageError("give one of families, --from-checkpoints and --from-config")
    _refuse_what_has_no_effect(given[0])
    target = None if output is None else output_file(output, [".json"])
    cut: str | int = int(granularity) if granularity.isdecimal() else granularity
    if from_checkpoints is not None:
        from finecast.problem.checkpoints import library_from_checkpoints
        from finecast.solvers.result import Progress

        with progress_bar() as tell:
            library = library_from_checkpoints(
                from_checkpoints,
                progress=lambda done, total: tell(Progress("bytes read", done, total)),
                granularity=cut,
                max_block_bytes=None if max_block_mb is None else _bytes(max_block_mb),
            )
    elif from_config is not None:
        from finecast.problem.model_configs import library_from_configs
        from finecast.solvers.result import Progress

        with progress_bar() as tell:
            library = library_from_configs(
                from_config,
                int(frozen) if frozen is not None and frozen.isdecimal() else frozen,
                progress=lambda done, total: tell(Progress("models built", done, total)),
                granularity=cut,
                max_block_bytes=None if max_block_mb is None else _bytes(max_block_mb),
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
                        granularity=cut,
                        dtype=dtype,
                        classes=classes,
                        lora_rank=lora_rank,
                        lora_targets=lora_targets,
                    )
                )
                for name in family
            ]
        )
    described = describe_library(library)
    if target is not None:
        write_library(target, library)
        described = {"file": str(target), **described}
    if as_json:
        print_json(described)
    else:
        title = str(target or from_checkpoints or from_config or " ".join(family))
        print_table(title, [*library_rows(described), *model_rows(described)])


def _refuse_what_has_no_effect(source: str) -> None:
    """Refuse options that say nothing of what the library is built from."""
    of_models = {"--from-checkpoints", "--from-config"}
    meant = {option: {"families"} for option in OF_FAMILIES}
    meant |= {"max_block_mb": of_models, "frozen": {"--from-config"}}
    context = click.get_current_context()
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and source not in meant.get(name, {source}):
            only = " and ".join(sorted(meant[name]))
            raise click.UsageError(f"{parameter.opts[0]} is for {only} only")


def _bytes(megabytes: float) -> int:
    if not 1e-6 <= megabytes <= LARGEST_MB:
        raise ValueError(
            f"--max-block-mb: {megabytes} is not allowed, must be from 1e-6 to {LARGEST_MB:g}"
        )
    return round(megabytes * 1e6)
