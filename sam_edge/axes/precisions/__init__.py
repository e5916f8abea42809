"""The precisions and their gates, one module each, registered as `PRECISION`."""
