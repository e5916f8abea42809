"""The runtime's formats, one module each; its attribute `FORMAT` is registered."""
