"""Measures the rows of a benchmark, each in a fresh process."""
