"""Network definitions (prototxt) of the original for any config, for `referee.py`.

The layers and their parameters are those of the original's scripts: `VGGNetBody` and
`CreateMultiBoxHead` in `python/caffe/model_libs.py`, and `AddExtraLayers` in
`examples/ssd/ssd_pascal.py`.
"""

from ssd_keras.config import SSDConfig

_RATES = "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"
_VGG = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
# The number of an extra layer is 6 or more in Caffe, and 8 or more in the paper.
_SOURCES = {"conv4_3": "conv4_3_norm", **{f"conv{i}_2": f"conv{i - 2}_2" for i in range(8, 13)}}

DETECTION = """
layer { name: "mbox_conf_reshape" type: "Reshape" bottom: "mbox_conf" top: "mbox_conf_reshape"
  reshape_param { shape { dim: 0 dim: -1 dim: %(outputs)d } } }
layer { name: "mbox_conf_softmax" type: "Softmax" bottom: "mbox_conf_reshape"
  top: "mbox_conf_softmax" softmax_param { axis: 2 } }
layer { name: "mbox_conf_flatten" type: "Flatten" bottom: "mbox_conf_softmax"
  top: "mbox_conf_flatten" flatten_param { axis: 1 } }
layer { name: "detection_out" type: "DetectionOutput" bottom: "mbox_loc" bottom: "mbox_conf_flatten"
  bottom: "mbox_priorbox" top: "detection_out" detection_output_param { num_classes: %(outputs)d
  share_location: true background_label_id: 0 nms_param { nms_threshold: 0.45 top_k: 400 }
  code_type: CENTER_SIZE keep_top_k: 200 confidence_threshold: 0.01 } }
"""
LOSS = """
layer { name: "mbox_loss" type: "MultiBoxLoss" bottom: "mbox_loc" bottom: "mbox_conf"
  bottom: "mbox_priorbox" bottom: "label" top: "mbox_loss" propagate_down: true
  propagate_down: true propagate_down: false propagate_down: false
  loss_param { normalization: VALID } multibox_loss_param { loc_loss_type: SMOOTH_L1
  conf_loss_type: SOFTMAX loc_weight: 1 num_classes: %(outputs)d share_location: true
  match_type: PER_PREDICTION overlap_threshold: 0.5 use_prior_for_matching: true
  background_label_id: 0 use_difficult_gt: %(difficult)s neg_pos_ratio: 3 neg_overlap: 0.5
  code_type: CENTER_SIZE ignore_cross_boundary_bbox: false mining_type: MAX_NEGATIVE } }
"""
EVALUATION = """
layer { name: "evaluation" type: "DetectionEvaluate" bottom: "detection_out" bottom: "label"
  top: "evaluation" detection_evaluate_param { num_classes: %(outputs)d background_label_id: 0
  overlap_threshold: 0.5 evaluate_difficult_gt: false name_size_file: "%(sizes)s" } }
"""
_SAMPLER = """batch_sampler { sampler { min_scale: 0.3 max_scale: 1 min_aspect_ratio: 0.5
  max_aspect_ratio: 2 } sample_constraint { %s } max_sample: 1 max_trials: 50 }
"""
_DATA = """
layer { name: "data" type: "AnnotatedData" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true mean_value: 104 mean_value: 117 mean_value: 123
    resize_param { prob: 1 resize_mode: WARP height: %(size)d width: %(size)d interp_mode: LINEAR
      interp_mode: AREA interp_mode: NEAREST interp_mode: CUBIC interp_mode: LANCZOS4 }
    distort_param { brightness_prob: 0.5 brightness_delta: 32 contrast_prob: 0.5
      contrast_lower: 0.5 contrast_upper: 1.5 hue_prob: 0.5 hue_delta: 18 saturation_prob: 0.5
      saturation_lower: 0.5 saturation_upper: 1.5 random_order_prob: 0 }
    expand_param { prob: 0.5 max_expand_ratio: 4 } emit_constraint { emit_type: CENTER } }
  annotated_data_param { batch_sampler { max_sample: 1 max_trials: 1 } %(samplers)s
    label_map_file: "%(labels)s" }
  data_param { source: "%(source)s" batch_size: %(batch)d backend: LMDB } }
"""


def inputs(**shapes: tuple[int, ...]) -> str:
    """Returns Input layers with the given names and shapes."""
    layers = []
    for name, shape in shapes.items():
        dims = " ".join(f"dim: {n}" for n in shape)
        layers.append(
            f'layer {{ name: "{name}" type: "Input" top: "{name}" '
            f"input_param {{ shape {{ {dims} }} }} }}\n"
        )
    return "".join(layers)


def data(size: int, source: str, labels: str, batch: int = 1) -> str:
    """Returns the training data layer of `ssd_pascal.py` for a database of `convert_annoset`."""
    rules = [f"min_jaccard_overlap: {iou}" for iou in (0.1, 0.3, 0.5, 0.7, 0.9)]
    samplers = "".join(_SAMPLER % rule for rule in [*rules, "max_jaccard_overlap: 1.0"])
    names = {"source": source, "labels": labels, "samplers": samplers}
    return _DATA % {"size": size, "batch": batch, **names}


def network(config: SSDConfig, outputs: int, width: float = 1.0, filler: str = "xavier") -> str:
    """Returns the layers from `data` to `mbox_loc`, `mbox_conf` and `mbox_priorbox`.

    Args:
        config: Sizes and tiling.
        outputs: Classes with background.
        width: Factor on the number of filters, as in `ssd_vgg16`.
        filler: Filler of the kernels. "msra" preserves the scale of the activations, so that the
            outputs are as large as with trained weights. Biases are then random, too.
    """

    def convolution(
        name: str, bottom: str, filters: float, options: str, head: bool = False
    ) -> str:
        count = filters if head else max(8, 8 * round(filters * width / 8))
        bias = "constant value: 0" if filler == "xavier" else "uniform min: -0.5 max: 0.5"
        kind, rest = bias.split(" ", 1)
        relu = f'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
        return (
            f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
            f"{_RATES} convolution_param {{ num_output: {count:.0f} {options} "
            f'weight_filler {{ type: "{filler}" }} bias_filler {{ type: "{kind}" {rest} }} }} }}\n'
            + ("" if head else relu)
        )

    def pooling(name: str, bottom: str, options: str) -> str:
        return (
            f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" '
            f"pooling_param {{ pool: MAX {options} }} }}\n"
        )

    net, bottom = "", "data"
    for block, (convolutions, filters) in enumerate(_VGG, start=1):
        for i in range(1, convolutions + 1):
            net += convolution(f"conv{block}_{i}", bottom, filters, "pad: 1 kernel_size: 3")
            bottom = f"conv{block}_{i}"
        options = "kernel_size: 3 stride: 1 pad: 1" if block == 5 else "kernel_size: 2 stride: 2"
        net += pooling(f"pool{block}", bottom, options)
        bottom = f"pool{block}"
    net += convolution("fc6", bottom, 1024, "pad: 6 kernel_size: 3 dilation: 6")
    net += convolution("fc7", "fc6", 1024, "kernel_size: 1")
    bottom = "fc7"
    for extra in config.extra_layers:
        name = f"conv{int(extra.name.removeprefix('conv')) - 2}"
        net += convolution(f"{name}_1", bottom, extra.bottleneck, "kernel_size: 1")
        options = f"kernel_size: {extra.kernel} stride: {extra.stride} pad: {extra.padding}"
        net += convolution(f"{name}_2", f"{name}_1", extra.filters, options)
        bottom = f"{name}_2"
    net += (
        'layer { name: "conv4_3_norm" type: "Normalize" bottom: "conv4_3" top: "conv4_3_norm" '
        "norm_param { across_spatial: false channel_shared: false "
        'scale_filler { type: "constant" value: 20 } } }\n'
    )
    return net + _heads(config, outputs, convolution)


def _heads(config: SSDConfig, outputs: int, convolution) -> str:
    net, joined = "", {"loc": [], "conf": [], "priorbox": []}
    for m in config.feature_maps:
        source = _SOURCES.get(m.name, m.name)
        for kind, depth in (("loc", 4), ("conf", outputs)):
            name = f"{source}_mbox_{kind}"
            filters = m.boxes_per_location * depth
            net += convolution(name, source, filters, "pad: 1 kernel_size: 3", head=True)
            net += (
                f'layer {{ name: "{name}_perm" type: "Permute" bottom: "{name}" '
                f'top: "{name}_perm" permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}\n'
                f'layer {{ name: "{name}_flat" type: "Flatten" bottom: "{name}_perm" '
                f'top: "{name}_flat" flatten_param {{ axis: 1 }} }}\n'
            )
            joined[kind].append(f"{name}_flat")
        ratios = " ".join(f"aspect_ratio: {r:g}" for r in m.aspect_ratios)
        cy, cx, h, w = config.variances
        net += (
            f'layer {{ name: "{source}_mbox_priorbox" type: "PriorBox" bottom: "{source}" '
            f'bottom: "data" top: "{source}_mbox_priorbox" prior_box_param {{ '
            f"min_size: {m.min_size:g} max_size: {m.max_size:g} {ratios} flip: true "
            f"clip: {str(config.clip).lower()} variance: {cx} variance: {cy} variance: {w} "
            f"variance: {h} step: {m.step:g} offset: 0.5 }} }}\n"
        )
        joined["priorbox"].append(f"{source}_mbox_priorbox")
    for kind, names in joined.items():
        bottoms = " ".join(f'bottom: "{name}"' for name in names)
        net += (
            f'layer {{ name: "mbox_{kind}" type: "Concat" {bottoms} top: "mbox_{kind}" '
            f"concat_param {{ axis: {2 if kind == 'priorbox' else 1} }} }}\n"
        )
    return net
