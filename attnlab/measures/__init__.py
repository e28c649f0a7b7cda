"""Measurements of what attention does, on NumPy arrays."""
