"""Compilation of networks."""

from torch import nn


def compile_network(network: nn.Module) -> None:
    """Compile a network in place, so that it draws the same random numbers as uncompiled."""
    network.compile(options={"fallback_random": True})
