"""Computes VOC and COCO average precision, and verifies exported files."""
