"""A plan in a file: a page, or the same for print."""

from __future__ import annotations

import os
from pathlib import Path

from finecast.compare.planning.figures import NetworkPlan
from finecast.compare.planning.page import plan_page
from finecast.problem.files import FormatError, write_atomically


def write_plan(plan: NetworkPlan, path: str | os.PathLike[str]) -> None:
    """Write a plan as a page (.html) or as a document (.pdf).

    Parameters
    ----------
    plan
        From `finecast.plan`.
    path
        File to write. The page prints on A4 from any browser; the document has the same sentences,
        map and tables without its appendix.

    Raises
    ------
    FormatError
        The ending is another, or the file cannot be written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix in (".html", ".htm"):
        write_atomically(target, plan_page(plan).encode())
        return
    if suffix == ".pdf":
        from finecast.compare.planning.document import plan_document

        write_atomically(target, plan_document(plan))
        return
    raise FormatError(target, f"has the ending {target.suffix!r}, expected '.html' or '.pdf'")
