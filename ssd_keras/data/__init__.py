"""From data sets to records, and from records to batches."""
