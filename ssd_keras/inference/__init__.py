"""Detection with a Keras model, a SavedModel or a TFLite file."""
