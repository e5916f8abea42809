"""One file per format: what the runtime knows of it, as `FORMAT`."""
