"""Stochastic variational inference: the algorithm, its bounds and its guides."""
