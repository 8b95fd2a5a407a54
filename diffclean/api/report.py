"""`diffclean.report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffclean.api.common import AnyPath, data_path_of

if TYPE_CHECKING:
    from diffclean.report.write import WrittenReport


def report(folder: AnyPath, *, out: AnyPath | None = None) -> WrittenReport:
    """Write the page that tells what was found and done: one HTML file that needs no network.

    Args:
        folder: the folder that `clean` wrote; or one that `variate` wrote, on disk or in a bucket, of which there is
            less to tell.
        out: the file, on disk or in a bucket; a page that is there is replaced. None: report.html in the folder.

    Raises:
        DiffcleanError: there is nothing to tell of the folder, or `out` cannot be written or is something else.
    """
    from diffclean.report.write import write_report

    return write_report(data_path_of(folder), data_path_of(out))
