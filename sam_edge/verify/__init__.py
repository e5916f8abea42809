"""Compares exported variants with the PyTorch reference, from a bundle's golden data.

parity        masks, predicted IoU and embeddings
clip_parity   a bundle's CLIP: text and image features
"""
