"""The error of a part whose optional packages are missing."""

from __future__ import annotations


class MissingExtra(ImportError):  # noqa: N818
    """A package that is needed is not installed.

    Parameters
    ----------
    what
        The part that needs it.
    extra
        The extra of finecast that installs the package.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed: pip install 'finecast[{extra}]'"
        )
        self.extra = extra
