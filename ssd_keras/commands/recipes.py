"""Lists the recipes of `ssd-keras train --recipe=NAME`, with the results in the paper and here.

    ssd-keras recipes

Results are in percent, as in the paper. The column `boxes` has the number of default boxes.
"""

from ssd_keras.training.recipes import EXPERIMENTS, RECORD_SETS


def main(words: list[str]) -> None:
    """Prints the list."""
    del words
    rows = [("recipe", "boxes", "iterations", "where", "paper", "ours")]
    for name, experiment in EXPERIMENTS.items():
        recipe = experiment.recipe
        length = f"{recipe.epochs:g} epochs" if recipe.epochs else f"{recipe.iterations:,}"
        boxes = str(experiment.config.num_default_boxes)
        numbers = (experiment.paper or "-", experiment.ours)
        rows.append((name, boxes, length, experiment.where, *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print("\nrecord sets in --data, and the arguments of `ssd-keras prepare` that write them:")
    for name, arguments in RECORD_SETS.items():
        print(f"  {name:18}{arguments}")
