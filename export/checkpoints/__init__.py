"""Reads published checkpoints: which model they hold, and their weights."""
