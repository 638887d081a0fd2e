"""A run: its config, its folder, its identity, and training it."""
