"""Exports SavedModel and TFLite files, and checks that they agree with the Keras model."""
