"""The models that can be exported.

catalogue   every model as data
encoders    hyperparameters of image encoders, one dataclass per kind
download    downloads published checkpoints
photos/     sample photographs
"""
