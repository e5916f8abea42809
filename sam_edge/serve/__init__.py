"""The page to try a bundle in a browser, and its server: `sam-edge serve` (the extra `serve`).

site          the files by URL: the page's, the bundle's, sample photographs
app           the ASGI application: these files, and embeddings of uploaded images
encode_queue  a bounded queue that encodes one image at a time
guard         refuses foreign hosts and origins; security headers
static        the same files written to a folder, for any host
"""
