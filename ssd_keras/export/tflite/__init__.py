"""TFLite files: graphs, conversion, checks, metadata, and the interpreter."""
