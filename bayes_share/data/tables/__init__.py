"""Tables in CSV and Parquet files, and the encoding of their columns as inputs and targets."""

from bayes_share.data.tables.encoder import TableEncoder
from bayes_share.data.tables.load import TableData, TablePart, load_rows, load_table
from bayes_share.data.tables.target import LIKELIHOODS, Target

__all__ = ["LIKELIHOODS", "TableData", "TableEncoder", "TablePart", "Target", "load_rows", "load_table"]
