"""Readers of dataset formats: VOC, ILSVRC DET, COCO, YOLO, TFDS, and built-in shapes."""
