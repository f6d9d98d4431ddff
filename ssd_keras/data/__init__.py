"""Datasets to record sets, and record sets to batches."""
