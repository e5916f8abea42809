"""Reference models in PyTorch, which every export is compared with, and their lowerings for CPUs."""
