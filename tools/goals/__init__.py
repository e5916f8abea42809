"""Compares what sam-edge reaches with its performance goals."""
