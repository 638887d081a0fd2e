"""Files and the terminal: arrays, CSV, atomic writes, folder locks, and text that is safe to print."""
