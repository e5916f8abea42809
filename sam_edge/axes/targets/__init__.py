"""One file per target: what the runtime knows of it, as `TARGET`."""
