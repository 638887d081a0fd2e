"""Compare methods that predict the rows of tables; run as ``python -m benchmarks.tables``."""
