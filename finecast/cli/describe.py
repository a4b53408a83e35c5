"""A library in words and numbers, as several commands show it."""

from __future__ import annotations

from typing import Any

from finecast.problem.wording import gigabytes, percent


def describe_library(library: Any) -> dict[str, Any]:
    """Return the counts and sharing statistics of a library."""
    from finecast.problem.library import sharing_statistics

    return {
        "models": library.models,
        "blocks": library.blocks,
        "families": sorted(set(library.model_family)),
        **vars(sharing_statistics(library)),
        "library_hash": library.content_hash,
    }


def library_rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of a library's table."""
    families = ", ".join(filter(None, described["families"])) or "one family"
    return [
        (
            "models",
            f"{described['models']} of {families}",
        ),
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
