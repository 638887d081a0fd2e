"""Stochastic variational inference: the method, its bounds and its guides."""
