"""Exact rewrites of the reference: the same function with less work and memory."""
