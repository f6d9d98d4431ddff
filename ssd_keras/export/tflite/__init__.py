"""TFLite files: their graphs, conversion, checks, metadata and interpreter."""

from ssd_keras.extras import require

require("ai_edge_litert", "tflite", "a TFLite file")
require("flatbuffers", "tflite", "a TFLite file")
