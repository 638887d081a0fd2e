"""The training step: what is minimised, how it is followed, and who takes the steps."""
