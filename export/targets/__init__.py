"""One file per target that has graphs of its own."""
