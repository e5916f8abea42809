"""The precisions and their gates, one module each; its attribute `PRECISION` is registered."""
