"""First in, first out: an example of a plug-in for finecast."""

from finecast.solvers.registry import Method

METHOD = Method(
    name="fifo",
    entry="finecast_fifo.policy:FirstInFirstOut",  # imported on first use
    setting="online",
    kind="policy",
    summary="every node keeps the blocks that arrived last",
    reference="classical",
)
