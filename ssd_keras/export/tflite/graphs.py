"""The functions that are converted to TFLite files. They use built-in TFLite operators only.

The batch size is fixed to 1. With a variable batch size, the converter splits the dilated fc6 into
SPACE_TO_BATCH_ND, a convolution and BATCH_TO_SPACE_ND, and adds shape computations to the heads.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from ssd_keras.detections import DetectionDecoder

RAW, DETECTIONS, MEDIAPIPE = "raw", "detections", "mediapipe"
KINDS = (RAW, DETECTIONS, MEDIAPIPE)

Graph = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def graph(model: keras.Model, decoder: DetectionDecoder, kind: str) -> Graph:
    """Creates the function for one kind of TFLite file.

    The function takes `image` float32 [1, S, S, 3], RGB 0..255. Its outputs depend on the kind:

    - "raw" returns all boxes and scores before suppression: `boxes` float32 [1, P, 4], `yxyx`, not
      clipped, and `scores` float32 [1, P, C], without the background.
    - "detections" returns the outputs of the SavedModel with B = 1: `detection_boxes` float32
      [1, K, 4], `detection_scores` float32 [1, K], `detection_classes` int32 [1, K], starting at 1,
      and `num_detections` int32 [1].
    - "mediapipe" returns `location` [1, K, 4], `category` [1, K], starting at 0 without the
      background, `score` [1, K] and `count` [1], all float32.

    Args:
        model: A model of `ssd_vgg16`, in float32.
        decoder: The decoder of its predictions.
        kind: One of `KINDS`.

    Returns:
        The function, image -> outputs by name.

    Raises:
        KeyError: If the kind is unknown.
    """

    def raw(image: tf.Tensor) -> dict[str, tf.Tensor]:
        boxes, scores = decoder.candidates(model(image, training=False))
        return {"boxes": boxes, "scores": scores}

    def detections(image: tf.Tensor) -> dict[str, tf.Tensor]:
        found = suppress(decoder, **raw(image))
        return {
            "detection_boxes": found["boxes"],
            "detection_classes": found["classes"],
            "detection_scores": found["scores"],
            "num_detections": found["num_detections"],
        }

    def mediapipe(image: tf.Tensor) -> dict[str, tf.Tensor]:
        found = suppress(decoder, **raw(image))
        return {
            "location": found["boxes"],
            "category": tf.cast(tf.maximum(found["classes"] - 1, 0), tf.float32),
            "score": found["scores"],
            "count": tf.cast(found["num_detections"], tf.float32),
        }

    return {RAW: raw, DETECTIONS: detections, MEDIAPIPE: mediapipe}[kind]


def suppress(
    decoder: DetectionDecoder, boxes: tf.Tensor, scores: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Applies the suppression of `DetectionDecoder` with operators that TFLite has.

    One NON_MAX_SUPPRESSION_V4 runs per class, on all boxes. The result equals that of TensorFlow's
    combined suppression. A single suppression for all classes would need boxes that are shifted by
    class, and the shift would round the coordinates.

    Args:
        decoder: Provides the thresholds and K.
        boxes: float32 [1, P, 4], `yxyx`, not clipped.
        scores: float32 [1, P, C], without the background.

    Returns:
        The outputs of `DetectionDecoder` with B = 1: `boxes` float32 [1, K, 4], `scores` float32
        [1, K], `classes` int32 [1, K] and `num_detections` int32 [1].
    """
    k = decoder.max_detections
    indices, kept_scores = [], []
    for class_scores in tf.unstack(scores[0], axis=1):
        index, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes[0],
            scores=class_scores,
            max_output_size=k,
            iou_threshold=decoder.iou_threshold,
            score_threshold=decoder.score_threshold,
            pad_to_max_output_size=True,
        )
        indices.append(index)  # [K], padded with 0
        kept_scores.append(tf.where(tf.range(k) < count, tf.gather(class_scores, index), 0.0))
    best, order = tf.math.top_k(tf.concat(kept_scores, axis=0), k)  # the K best of C * K
    found = best > 0
    kept_boxes = tf.gather(boxes[0], tf.gather(tf.concat(indices, axis=0), order))
    return {
        "boxes": tf.where(found[:, None], tf.clip_by_value(kept_boxes, 0.0, 1.0), 0.0)[None],
        "scores": best[None],
        "classes": tf.where(found, order // k + 1, 0)[None],
        "num_detections": tf.reduce_sum(tf.cast(found, tf.int32))[None],
    }
