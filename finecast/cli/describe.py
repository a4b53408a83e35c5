"""A library in words and numbers, as several commands show it."""

from __future__ import annotations

from typing import Any

from finecast.problem.wording import counted, gigabytes, percent

AREAS_LISTED = 12
"""Most areas whose nodes a table lists."""

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


def describe_areas(instance: Any) -> dict[str, Any]:
    """Return the nodes of each area and its share of the users; nothing for one area."""
    import numpy as np

    if instance.area_count == 1:
        return {}
    return {
        "areas": [np.flatnonzero(instance.areas == a) for a in range(instance.area_count)],
        "area_users": np.stack(
            [
                np.bincount(row[row >= 0], minlength=instance.area_count)
                for row in instance.user_area
            ]
        ),
    }


def area_rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of an instance's areas: how many, of which nodes, with how many users."""
    if "areas" not in described:
        return []
    areas, users = described["areas"], described["area_users"]
    rows = [
        ("areas", areas_in_words(areas)),
        ("users of an area", f"{span(users)} that request something in a slot"),
    ]
    if len(areas) <= AREAS_LISTED:
        rows += [(f"area {a}", f"nodes {_listed(nodes)}") for a, nodes in enumerate(areas)]
    return rows


def areas_in_words(areas: Any) -> str:
    """Write how many areas there are, and of how many nodes."""
    sizes = [len(nodes) for nodes in areas]
    return f"{counted(len(areas), 'area')} of {span(sizes)} node{'' if max(sizes) == 1 else 's'}"


def span(values: Any) -> str:
    """Write the least and the largest of some numbers, or the one that all are."""
    import numpy as np

    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _listed(nodes: Any) -> str:
    return ", ".join(str(n) for n in nodes)


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
