"""The batched kernel: beams for many messages at once, each with a certified bound."""
