"""Trains and evaluates the embedded model."""
