"""Building blocks of the exact rewrites: the same function with less arithmetic and less memory.

Nothing in this folder knows a model. `architectures` composes these blocks into the lowering of each encoder
and of the mask decoder.
"""
