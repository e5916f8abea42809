"""CLIP, which finds masks by text: its checkpoint, its tokenizer and its graphs."""
