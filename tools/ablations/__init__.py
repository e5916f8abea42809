"""Measures the effect of single techniques."""
