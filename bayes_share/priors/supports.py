"""Supports of priors."""

from torch.distributions import constraints


def of_one_number(support: constraints.Constraint) -> constraints.Constraint:
    """Return the constraint that a support places on each value."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support
