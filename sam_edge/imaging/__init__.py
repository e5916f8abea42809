"""Images and masks as NumPy arrays: read, resized, upscaled, cleaned, encoded, compared."""
