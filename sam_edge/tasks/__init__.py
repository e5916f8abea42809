"""What is built on a loaded model: everything-mode, masks by text, refined masks."""
