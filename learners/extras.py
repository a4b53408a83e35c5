"""Packages that only some parts need."""

from __future__ import annotations


class MissingExtra(ImportError):  # noqa: N818
    """A package is not installed.

    Parameters
    ----------
    what
        What needs it.
    extra
        The extra of finecast that installs it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed: pip install 'finecast[{extra}]'"
        )
        self.extra = extra
