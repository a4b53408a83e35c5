"""Comparisons: suites, runs, statistics, report."""
