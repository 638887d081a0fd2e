"""Laplace's approximation of the last layer."""
