"""The training step: the objective, its gradient, the updates, and the drivers that take steps."""
