"""The reference models in PyTorch: the truth every export is compared with."""
