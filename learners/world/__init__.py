"""What is played: episodes, their expected tables, the environment, and baselines."""
