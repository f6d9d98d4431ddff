"""SavedModel and TFLite files, and their agreement with the Keras model."""
