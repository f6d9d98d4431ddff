"""Readers of dataset formats, such as VOC, COCO, YOLO and CVAT, and the built-in shapes."""
