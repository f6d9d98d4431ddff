"""Thin commands: flags, one call into the library, one result line."""
