"""From a bundle to masks: choose a variant and a backend, encode an image, decode prompts."""
