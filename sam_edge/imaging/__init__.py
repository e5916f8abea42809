"""Images and masks as NumPy arrays. Only `io` needs more than NumPy: Pillow.

io            read images, write masks and overlays
resample      Pillow's bilinear and bicubic resizing
preprocess    image -> the encoder's input
postprocess   low-resolution logits -> masks at the image's size
regions       connected regions: label, fill holes, remove islands
rle           COCO run-length encoding, areas, boxes
metrics       IoU and boundary IoU
"""
