"""The runtime's formats, one module each, registered as `FORMAT`."""
