"""What models there are: the catalogue (data only) and the embedded default's files."""
