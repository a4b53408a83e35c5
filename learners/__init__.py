"""Environments and multi-agent learners."""

# The folder stands at the top of the checkout too. Under that name its classes would be others.
if __name__ != "finecast.learners":
    raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
