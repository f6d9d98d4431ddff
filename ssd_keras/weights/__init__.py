"""Weights of other projects: formats, naming, conversion, loading, report."""
