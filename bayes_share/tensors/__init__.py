"""Tools for tensors and modules: nested inputs, functional calls, random numbers by key, units."""
