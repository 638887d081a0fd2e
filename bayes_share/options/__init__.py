"""Options as records: flat names, typed values, and the command-line parser made of them."""
