"""Converts datasets to record sets, and record sets to batches for training."""
