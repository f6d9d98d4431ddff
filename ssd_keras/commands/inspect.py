"""Writes an HTML page about record sets, to check them before a long training.

    ssd-keras inspect --records=records/train,records/val --out=inspection.html

The command also prints the main facts as text. The page shows, for each set:

- the numbers of images, objects and classes, and rare classes;
- sizes and shapes of the objects at the input size of --config, and unmatched objects;
- the number of objects per image, and their positions;
- near-duplicate images, within a set and between two sets;
- almost identical boxes of one class, and thumbnails of the most unusual images.

The page is one file and needs no internet connection.
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
    print(f"wrote {_OUT.value}")
