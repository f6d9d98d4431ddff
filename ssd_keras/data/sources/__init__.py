"""Data sets that can be read: VOC, ILSVRC DET, COCO, YOLO, TFDS and built-in shapes."""
