"""Read published checkpoints: recognise the model, map tensor names, change the input size."""
