"""Augmentation: the ops choose a view of an image from its boxes; then its pixels are computed."""
