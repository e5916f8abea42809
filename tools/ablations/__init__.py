"""Measures what single techniques are worth."""
