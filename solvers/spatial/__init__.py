"""Several messages on the air at once."""
