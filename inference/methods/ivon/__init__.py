"""IVON and its optimizer."""
