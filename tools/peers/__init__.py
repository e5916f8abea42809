"""sam-edge beside `segment_anything` and `samexporter`: the same work in turn, each in its environment."""
