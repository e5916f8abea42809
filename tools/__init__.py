"""Tools for the development of sam-edge; not in the wheel."""
