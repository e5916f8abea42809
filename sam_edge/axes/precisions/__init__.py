"""One file per precision, as `PRECISION`."""
