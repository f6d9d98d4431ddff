"""Augmentation: the ops choose a view of the image from its boxes; pixels are computed once."""
