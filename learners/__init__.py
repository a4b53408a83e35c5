"""Environments and multi-agent learners."""
