"""The algorithms, one file or folder each."""
