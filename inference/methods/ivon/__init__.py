"""The IVON algorithm and its optimizer."""
