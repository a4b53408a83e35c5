"""The installed version, in a module that imports nothing heavy."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

try:
    FINECAST_VERSION = package_version("finecast")
except PackageNotFoundError:  # a checkout that is not installed
    FINECAST_VERSION = "0+unknown"
