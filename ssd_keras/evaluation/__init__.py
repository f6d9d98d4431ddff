"""Computes VOC and COCO average precision, analyzes errors, and verifies exported files."""
