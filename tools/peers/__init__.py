"""Measures sam-edge beside `segment_anything` and `samexporter`, each in an environment of its own."""
