"""What the one loop is made of: a look before the first step, validation, early stopping, history, checkpoints."""
