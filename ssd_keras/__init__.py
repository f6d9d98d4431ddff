"""SSD: Single Shot MultiBox Detector for Keras 3 and TensorFlow.

Implements VGG16-SSD300 and SSD512 of

    W. Liu, D. Anguelov, D. Erhan, C. Szegedy, S. Reed, C.-Y. Fu, A. C. Berg:
    SSD: Single Shot MultiBox Detector. ECCV 2016. arXiv:1512.02325 (v5),

and of its original code, github.com/weiliu89/caffe, branch ssd. "Section", "figure" and "equation"
in this package mean those of the paper; `*.cpp` and `*.py` files those of the original code.

Conventions: boxes are normalised `yxyx` = (ymin, xmin, ymax, xmax); images are RGB 0..255; class 0
is the background and `num_classes` counts the others. Symbols: B images in a batch, P default
boxes, G padded ground truth, C classes, K detections.
"""

from ssd_keras.augment import augment
from ssd_keras.boxes import decode, encode, pairwise_iou
from ssd_keras.coco_metrics import coco_average_precision
from ssd_keras.config import (
    SSD300_COCO,
    SSD300_VOC,
    SSD512_COCO,
    SSD512_VOC,
    ExtraLayer,
    FeatureMap,
    SSDConfig,
)
from ssd_keras.default_boxes import default_boxes
from ssd_keras.detections import DetectionDecoder
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.matching import match
from ssd_keras.metrics import voc_average_precision
from ssd_keras.model import ssd_vgg16
from ssd_keras.pipeline import eval_dataset, train_dataset
from ssd_keras.predictions import split_predictions
from ssd_keras.serving import export_saved_model
from ssd_keras.tflite import export_tflite
from ssd_keras.visualize import draw_detections
from ssd_keras.weights import load_weights

__version__ = "0.1.0"

__all__ = [
    "SSD300_COCO",
    "SSD300_VOC",
    "SSD512_COCO",
    "SSD512_VOC",
    "DetectionDecoder",
    "ExtraLayer",
    "FeatureMap",
    "MultiBoxLoss",
    "SSDConfig",
    "augment",
    "coco_average_precision",
    "decode",
    "default_boxes",
    "draw_detections",
    "encode",
    "eval_dataset",
    "export_saved_model",
    "export_tflite",
    "load_weights",
    "match",
    "pairwise_iou",
    "split_predictions",
    "ssd_vgg16",
    "train_dataset",
    "voc_average_precision",
]
