"""Ways to predict the rows of tables, compared; run as ``python -m benchmarks.tables``."""
