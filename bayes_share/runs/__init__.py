"""Training runs: configuration, run folder, identity, training and loading."""
