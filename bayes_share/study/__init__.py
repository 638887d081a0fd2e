"""Studies: many independent runs in one folder, and tables of their results."""
