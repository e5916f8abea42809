"""CLIP, which selects masks by text: read its checkpoint and tokenizer, write its graphs."""
