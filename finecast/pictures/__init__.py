"""Pictures of instances and solutions; matplotlib is imported here and nowhere else."""
