"""Augmentation: each operation decides from the boxes what is seen; pixels are made once."""
