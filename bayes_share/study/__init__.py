"""Studies: many independent runs in one folder, and what they say together."""
