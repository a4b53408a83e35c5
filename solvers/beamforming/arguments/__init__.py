"""Branch and bound on the arguments of pairs of received signals: one message, to a proof."""
