"""Distillation: a network or an ensemble that learns from trained networks."""
