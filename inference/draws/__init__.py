"""Posterior draws, as networks and as parameter values, and quantities computed from them."""
