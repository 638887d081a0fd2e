"""Correctness and speed of the toolkit on a GPU."""
