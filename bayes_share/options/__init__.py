"""Options as dataclass records: flat names, typed values, and a command-line parser generated from them."""
