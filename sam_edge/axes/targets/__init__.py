"""The runtime's targets, one module each; its attribute `TARGET` is registered."""
