"""A bundle on disk: its manifest, its golden data, its files and how it is published."""
