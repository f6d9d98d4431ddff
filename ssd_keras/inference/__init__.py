"""Runs detectors: Keras models, SavedModels and TFLite files, on image files and records."""
