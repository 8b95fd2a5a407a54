"""`diffclean.convert`."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

from diffclean.api.common import AnyPath, data_path_of, following
from diffclean.progress import Progress

if TYPE_CHECKING:
    from diffclean.data.convert import Converted


def convert(
    source: AnyPath,
    out: AnyPath,
    *,
    to: str | None = None,
    label_from: str | None = None,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> Converted:
    """Write a data set in another format, with the images as they are.

    Labels, class names and what lies beside images (other columns, other members) are kept where the format has a place
    for them.

    Args:
        source: a data set in a format of docs/formats.md.
        out: a folder that does not exist yet, on disk or in a bucket.
        to: "folder", "webdataset", "parquet", "huggingface" or "npz"; None: the format that `source` has.
        label_from: where labels are, see docs/formats.md; None: the usual place.
        progress: whether a bar is drawn, or a `Progress` to be told.
        stop: set by someone who wants it to end.

    Raises:
        UsageError: there is no such place for labels.
        DiffcleanError: `out` exists, or the data set cannot be used or does not fit into the format.
        Interrupted: `stop` was set; nothing is left behind.
    """
    from diffclean.data.convert import convert as work

    with following(progress) as told:
        return work(str(source), data_path_of(out), to, label_from, told, stop)
