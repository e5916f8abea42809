"""Whether the masks of a variant are those of the reference."""
