"""The runtime's targets, one module each, registered as `TARGET`."""
