"""The named recipes: every experiment of the paper, its ablations, and two for fine-tuning.

Each experiment has its record sets, the config of the network, the training settings, the metric
and the result of the paper. The schedules are the paper's. With expansion (section 3.6), which
doubles the iterations, they are those of the original's scripts (`ssd_pascal.py`, `ssd_coco.py`).
"""

import dataclasses
import os
from pathlib import Path

from ssd_keras import config as configs
from ssd_keras.config import SSDConfig
from ssd_keras.training import ablations
from ssd_keras.training.recipe import Recipe

# Record sets of the recipes, with the arguments of `ssd-keras prepare` that write them.
RECORD_SETS = {
    "voc07trainval": "--source=voc --path=VOCdevkit --splits=2007:trainval --labels=voc",
    "voc07test": "--source=voc --path=VOCdevkit --splits=2007:test --labels=voc",
    "voc12trainval": "--source=voc --path=VOCdevkit --splits=2012:trainval --labels=voc",
    "coco_trainval35k": "--source=coco --path=coco --splits=trainval35k",
    "coco_minival2014": "--source=coco --path=coco --splits=minival2014",
    "det_train": "--source=ilsvrc_det --path=ILSVRC --splits=train",
    "det_val1": "--source=ilsvrc_det --path=ILSVRC --splits=val1",
    "det_val2": "--source=ilsvrc_det --path=ILSVRC --splits=val2",
}
NOT_TRAINED = "not trained here"


@dataclasses.dataclass(frozen=True, slots=True)
class Experiment:
    """A recipe with its data, network, initial weights and results.

    Attributes:
        where: Table or section of the paper.
        paper: The result in the paper, in percent, and its metric; "" if the paper has none.
        records: Names of the record sets to train on; () if the user gives them.
        val_records: Name of the record set to evaluate on, or None.
        config: The config of the network and its tiling.
        weights: Initial weights: "imagenet", "random", or the name of a file in the folder of the
            record sets.
        recipe: The training settings.
        ours: The result of this package and its metric, or `NOT_TRAINED`.
        width: Factor on the number of filters.
    """

    where: str
    paper: str
    records: tuple[str, ...]
    val_records: str | None
    config: SSDConfig
    weights: str
    recipe: Recipe
    ours: str = NOT_TRAINED
    width: float = 1.0


# --- training settings: section 3 ---

# The defaults of `Recipe` are the paper's: SGD with learning rate 1e-3, momentum 0.9, weight decay
# 5e-4 and batches of 32.
_VOC07 = Recipe(iterations=60_000, boundaries=(40_000, 50_000), augmentation="ssd_no_expand")
_VOC07_EXPANDED = Recipe(iterations=120_000, boundaries=(80_000, 100_000))
_VOC12 = Recipe(iterations=80_000, boundaries=(60_000,), augmentation="ssd_no_expand")
_VOC12_EXPANDED = Recipe(iterations=160_000, boundaries=(120_000,))
_COCO = Recipe(
    iterations=240_000,
    boundaries=(160_000, 200_000),
    augmentation="ssd_no_expand",
    use_difficult=False,
    eval_every=10_000,
    metric="coco",
)
_COCO_EXPANDED = dataclasses.replace(
    _COCO, iterations=400_000, boundaries=(280_000, 360_000), augmentation="ssd"
)
_DET = Recipe(
    iterations=440_000,
    boundaries=(320_000, 400_000),
    augmentation="ssd_no_expand",
    eval_every=10_000,
    metric="voc_area",
)
_DET_EXPANDED = dataclasses.replace(
    _DET, iterations=880_000, boundaries=(640_000, 800_000), augmentation="ssd"
)

# --- record sets: section 3 ---

_07, _0712 = ("voc07trainval",), ("voc07trainval", "voc12trainval")
_0712PLUS = ("voc07trainval", "voc07test", "voc12trainval")  # 07++12, 21503 images


def _voc07(
    where: str,
    paper: str,
    records: tuple[str, ...],
    config: SSDConfig,
    recipe: Recipe,
    weights: str = "imagenet",
) -> Experiment:
    paper = f"{paper} VOC07 test mAP" if paper else ""
    return Experiment(where, paper, records, "voc07test", config, weights, recipe)


def _voc12(
    where: str, paper: str, config: SSDConfig, recipe: Recipe, weights: str = "imagenet"
) -> Experiment:
    # The annotations of VOC2012's test images are not published, so there is no evaluation set.
    return Experiment(where, f"{paper} VOC12 test mAP", _0712PLUS, None, config, weights, recipe)


def _coco(where: str, paper: str, config: SSDConfig, recipe: Recipe) -> Experiment:
    records, validation = ("coco_trainval35k",), "coco_minival2014"
    paper = f"{paper} COCO test-dev AP/AP50/AP75"
    return Experiment(where, paper, records, validation, config, "imagenet", recipe)


def _det(where: str, paper: str, config: SSDConfig, recipe: Recipe) -> Experiment:
    records = ("det_train", "det_val1")
    return Experiment(where, paper, records, "det_val2", config, "imagenet", recipe)


_300, _512 = configs.SSD300_VOC, configs.SSD512_VOC
_300S, _512S = configs.SSD300_COCO, configs.SSD512_COCO  # smaller boxes, section 3.4
_E300, _E512 = "ssd300_coco_expand.keras", "ssd512_coco_expand.keras"

# The paper gives no schedule for fine-tuning from COCO. The schedule of the same data is used.
PAPER = {
    "ssd300_voc07": _voc07("table 1", "68.0", _07, _300, _VOC07),
    "ssd512_voc07": _voc07("table 1", "71.6", _07, _512, _VOC07),
    "ssd300_voc07_expand": _voc07("not in the paper", "", _07, _300, _VOC07_EXPANDED),
    "ssd512_voc07_expand": _voc07("not in the paper", "", _07, _512, _VOC07_EXPANDED),
    "ssd300_voc0712": _voc07("table 1", "74.3", _0712, _300, _VOC07),
    "ssd512_voc0712": _voc07("table 1", "76.8", _0712, _512, _VOC07),
    "ssd300_voc0712_expand": _voc07("table 6", "77.2", _0712, _300, _VOC07_EXPANDED),
    "ssd512_voc0712_expand": _voc07("table 6", "79.8", _0712, _512, _VOC07_EXPANDED),
    "ssd300_voc0712_from_coco": _voc07(
        "table 1", "79.6", _0712, _300S, _VOC07, "ssd300_coco.keras"
    ),
    "ssd512_voc0712_from_coco": _voc07(
        "table 1", "81.6", _0712, _512S, _VOC07, "ssd512_coco.keras"
    ),
    "ssd300_voc0712_from_coco_expand": _voc07(
        "table 6", "81.2", _0712, _300S, _VOC07_EXPANDED, _E300
    ),
    "ssd512_voc0712_from_coco_expand": _voc07(
        "table 6", "83.2", _0712, _512S, _VOC07_EXPANDED, _E512
    ),
    "ssd300_voc0712plus": _voc12("table 4", "72.4", _300, _VOC12),
    "ssd512_voc0712plus": _voc12("table 4", "74.9", _512, _VOC12),
    "ssd300_voc0712plus_expand": _voc12("table 6", "75.8", _300, _VOC12_EXPANDED),
    "ssd512_voc0712plus_expand": _voc12("table 6", "78.5", _512, _VOC12_EXPANDED),
    "ssd300_voc0712plus_from_coco": _voc12("table 4", "77.5", _300S, _VOC12, "ssd300_coco.keras"),
    "ssd512_voc0712plus_from_coco": _voc12("table 4", "80.0", _512S, _VOC12, "ssd512_coco.keras"),
    "ssd300_voc0712plus_from_coco_expand": _voc12("table 6", "79.3", _300S, _VOC12_EXPANDED, _E300),
    "ssd512_voc0712plus_from_coco_expand": _voc12("table 6", "82.2", _512S, _VOC12_EXPANDED, _E512),
    "ssd300_coco": _coco("table 5", "23.2/41.2/23.4", _300S, _COCO),
    "ssd512_coco": _coco("table 5", "26.8/46.5/27.8", _512S, _COCO),
    "ssd300_coco_expand": _coco("table 6", "25.1/43.1/25.8", _300S, _COCO_EXPANDED),
    "ssd512_coco_expand": _coco("table 6", "28.8/48.5/30.3", _512S, _COCO_EXPANDED),
    "ssd300_det": _det("section 3.5", "43.4 val2 mAP", _300S, _DET),
    "ssd512_det": _det("not in the paper", "", _512S, _DET),
    "ssd300_det_expand": _det("not in the paper", "", _300S, _DET_EXPANDED),
    "ssd512_det_expand": _det("not in the paper", "", _512S, _DET_EXPANDED),
}


def _ablation(
    where: str, paper: str, config: SSDConfig = _300, recipe: Recipe = _VOC07
) -> Experiment:
    return _voc07(where, paper, _0712, config, recipe)


# Table 2's training without augmentation mirrors images, as Fast and Faster R-CNN do.
_MIRROR_ONLY = dataclasses.replace(_VOC07, augmentation="flip_only")
_INSIDE = dataclasses.replace(_VOC07, border_boxes=False)

ABLATIONS = {
    "no_augmentation": _ablation("table 2", "65.5", recipe=_MIRROR_ONLY),
    "no_ratios": _ablation("table 2", "71.6", ablations.NO_RATIOS),
    "no_ratio_3": _ablation("table 2", "73.7", ablations.NO_RATIO_3),
    "full_vgg": _ablation("table 2", "74.2", ablations.FULL_VGG),
    "six_maps_inside": _ablation("table 3", "63.4", _300, _INSIDE),
    "five_maps": _ablation("table 3", "74.6", ablations.FIVE_MAPS),
    "five_maps_inside": _ablation("table 3", "63.1", ablations.FIVE_MAPS, _INSIDE),
    "four_maps": _ablation("table 3", "73.8", ablations.FOUR_MAPS),
    "four_maps_inside": _ablation("table 3", "68.4", ablations.FOUR_MAPS, _INSIDE),
    "three_maps": _ablation("table 3", "70.7", ablations.THREE_MAPS),
    "three_maps_inside": _ablation("table 3", "69.2", ablations.THREE_MAPS, _INSIDE),
    "two_maps": _ablation("table 3", "64.2", ablations.TWO_MAPS),
    "two_maps_inside": _ablation("table 3", "64.4", ablations.TWO_MAPS, _INSIDE),
    "one_map": _ablation("table 3", "62.4", ablations.ONE_MAP),
    "one_map_inside": _ablation("table 3", "64.0", ablations.ONE_MAP, _INSIDE),
    "one_box": _ablation("section 4", "", ablations.ONE_BOX),
    "fully_connected": _ablation("section 4", "", ablations.CONNECTED),
}

# Fine-tuning uses Adam, warm-up and gradient clipping, because the heads are new, and a VGG16 may
# lack fc6 and fc7. The values are those of the runs on blood cells in docs/measurements.md, which
# took 300 and 600 iterations (8 and 16 epochs of 292 images). The 30 epochs of `finetune` have not
# been run.
_FINETUNE = Recipe(
    epochs=30,
    batch_size=8,
    optimizer="adam",
    learning_rate=2e-4,
    cosine=True,
    warmup=50,
    clip_norm=10,
    eval_every=0,
)
OWN = {
    "finetune": Experiment(
        "the default, for your data",
        "",
        (),
        None,
        _300,
        "imagenet",
        _FINETUNE,
        "84.9 blood cells mAP after 300 iterations (docs/measurements.md)",
    ),
    "laptop": Experiment(
        "for your data, without a GPU",
        "",
        (),
        None,
        _300,
        "imagenet",
        dataclasses.replace(_FINETUNE, epochs=16, freeze=("conv1_*", "conv2_*")),
        "85.9 blood cells mAP after 600 iterations (docs/measurements.md)",
    ),
}

EXPERIMENTS = {**OWN, **PAPER, **ABLATIONS}


def record_paths(names: tuple[str, ...], folder: str | os.PathLike[str]) -> list[str]:
    """Returns the folders of record sets.

    Args:
        names: Keys of `RECORD_SETS`.
        folder: The folder that contains the record sets.

    Returns:
        The folder of each record set, in the order of `names`.

    Raises:
        FileNotFoundError: If a folder is missing. The message has the command that writes it.
    """
    for name in names:
        if not Path(folder, name).is_dir():
            raise FileNotFoundError(
                f"data (={os.fspath(folder)}) has no record set {name}: write it with ssd-keras "
                f"prepare {RECORD_SETS[name]} --out={Path(folder, name)}"
            )
    return [str(Path(folder, name)) for name in names]
