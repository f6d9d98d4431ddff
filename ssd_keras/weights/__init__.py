"""Import of weights files: formats, naming conventions, conversion, loading and report."""
