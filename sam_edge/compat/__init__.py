"""The names and arguments of the `segment_anything` package, on this runtime."""
