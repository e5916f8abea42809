"""A page to try a bundle in a browser, and its server: what `sam-edge serve` runs (the `serve` extra).

site      which files there are, by their URLs: the page's, the bundle's, sample photographs
app       the ASGI application: those files, and embeddings of pictures
encodes   one picture at a time is encoded, and only so many wait
guard     who may ask, and the headers of every response
static    the same files in a folder, for any host
"""
