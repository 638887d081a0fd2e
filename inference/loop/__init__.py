"""Parts of the training loop: checks before the first step, validation, early stopping, history, checkpoints."""
