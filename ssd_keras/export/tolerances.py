"""The tolerances within which exported files must agree with the Keras model."""

from ssd_keras.export.agreement import Tolerance

SAVED_MODEL = {
    "float32": Tolerance(box_difference=1e-4, score_difference=1e-4, unmatched_share=0.01),
    # bfloat16 has 8 significant bits.
    "bfloat16": Tolerance(box_difference=0.02, score_difference=0.1, unmatched_share=0.1),
}
# This tolerance only detects an 8-bit file that does not work. `ssd-keras verify` measures the loss
# of AP.
_8_BITS = Tolerance(box_difference=0.05, score_difference=0.15, unmatched_share=0.1, far_share=0.1)
TFLITE = {
    "float32": Tolerance(box_difference=1e-4, score_difference=1e-4, unmatched_share=0.01),
    "float16": Tolerance(box_difference=0.01, score_difference=0.03, unmatched_share=0.1),
    "dynamic": _8_BITS,
    "int8": _8_BITS,
}
SAVED_MODEL_PRECISIONS, TFLITE_PRECISIONS = tuple(SAVED_MODEL), tuple(TFLITE)
