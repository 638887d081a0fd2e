"""The version, for the package's metadata and for what a run writes down."""

__version__ = "0.1.0"
