"""What a node sees, and the networks on it."""
