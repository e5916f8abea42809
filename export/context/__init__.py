"""State shared by the variants of one export, and the job of writing one variant."""
