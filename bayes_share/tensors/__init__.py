"""Utilities for tensors and modules: nested inputs, functional calls, keyed random seeds, units."""
