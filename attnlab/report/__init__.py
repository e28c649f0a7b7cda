"""Figures, tables and comparisons made from finished runs."""
