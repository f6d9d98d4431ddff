"""Average precision of VOC and COCO, and verification of exported files."""
