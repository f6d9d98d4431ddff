"""Writes a page about record sets: the facts to look at before a long training.

    ssd-keras inspect --records=records/train,records/val --out=inspection.html

The page and the text have: images, objects and classes of each set; sizes and shapes of the objects
at the input size of --config, and the objects that no default box matches; objects in an image and
where they lie; pictures that look alike, within a set and in two sets; rare classes; almost
identical boxes of one class; small pictures of the oddest images. The page is one file and needs no
network.
"""

from absl import flags

from ssd_keras.config_files import CONFIG_HELP, as_config
from ssd_keras.data.inspection import inspect_records, inspection_text
from ssd_keras.data.inspection_page import html_page
from ssd_keras.files import atomic

_RECORDS = flags.DEFINE_list(
    "records", None, "Record sets with the same classes, separated by commas.", required=True
)
_CONFIG = flags.DEFINE_string("config", "SSD300_VOC", CONFIG_HELP)
_OUT = flags.DEFINE_string("out", "inspection.html", "HTML file to write.")
_LIMIT = flags.DEFINE_integer(
    "limit", None, "Maximum number of images of each set. Default: all.", lower_bound=1
)


def main(words: list[str]) -> None:
    """Prints the text and writes the page."""
    del words
    found = inspect_records(_RECORDS.value, as_config(_CONFIG.value), _LIMIT.value)
    print(inspection_text(found))
    with atomic(_OUT.value) as temporary:
        temporary.write_text(html_page(found), encoding="utf-8")
    print(f"{_OUT.value}: the page")
