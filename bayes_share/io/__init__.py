"""Files and the terminal: arrays, CSV, writing whole files, one process per folder, safe text."""
