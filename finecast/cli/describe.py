"""A library in words and numbers, as several commands show it."""

from __future__ import annotations

from typing import Any

from finecast.problem.wording import gigabytes, percent

LISTED = 12
"""Most models that a table lists."""


def describe_library(library: Any) -> dict[str, Any]:
    """Return the counts and sharing statistics of a library."""
    from finecast.problem.library import sharing_statistics

    return {
        "models": library.models,
        "blocks": library.blocks,
        "families": sorted(set(filter(None, library.model_family))),
        "model_bytes": dict(zip(library.model_names, library.model_size.tolist(), strict=True)),
        **vars(sharing_statistics(library)),
        "library_hash": library.content_hash,
    }


def library_rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of a library's table."""
    families = ", ".join(described["families"])
    return [
        ("models", f"{described['models']}{' of ' if families else ''}{families}"),
        (
            "parameter blocks",
            f"{described['blocks']}, {described['reusable_blocks']} of them in several models",
        ),
        (
            "blocks per model",
            f"{described['blocks_per_model_min']} to {described['blocks_per_model_max']}, "
            f"mean {described['blocks_per_model_mean']:.1f}",
        ),
        ("all models apart", gigabytes(described["separate_bytes"])),
        (
            "each block once",
            f"{gigabytes(described['deduplicated_bytes'])}, "
            f"saves {percent(described['saved_share'], 1)}",
        ),
    ]


def model_rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a row for each model of a library: its name, size and shared part."""
    rows = [
        (name, f"{gigabytes(size)}, {percent(share, 1)} of it in several models")
        for (name, size), share in zip(
            described["model_bytes"].items(), described["shared_share"], strict=True
        )
    ]
    if len(rows) <= LISTED:
        return rows
    return [*rows[: LISTED - 1], ("...", f"{len(rows) - LISTED + 1} more models")]
