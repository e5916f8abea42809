"""Compares what sam-edge reaches with its targets."""
