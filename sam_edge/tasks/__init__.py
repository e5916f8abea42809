"""Tasks on top of a loaded model: everything-mode, masks by text, refined masks."""
