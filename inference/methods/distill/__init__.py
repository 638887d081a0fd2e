"""Distillation: a network, or an ensemble, that learns from networks that are trained already."""
