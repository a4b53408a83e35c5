"""Training runs: options, draws, steps, checkpoints, logs, held-out evaluation."""
