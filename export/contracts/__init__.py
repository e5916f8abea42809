"""Decoder interfaces of other packages (`--compat`), one file each."""
