"""Suites, and the runs of methods on their instances."""
