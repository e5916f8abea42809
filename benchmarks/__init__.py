"""The harness: what is measured, against what, and how to repeat it."""
