"""`diffclean report`."""

from __future__ import annotations

from pathlib import Path

import click

from diffclean.api.report import report
from diffclean.cli import frame


@frame.verb("report", writes=True, door=report)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="The file of the report.  [default: FOLDER/report.html]",
)
def command(run: frame.Run, folder: Path, out: Path | None) -> frame.Result:
    """Write the report on a data set: what was found in it and what was done to it.

    FOLDER was written by `clean`, or by `variate`, for which the report is shorter; the latter may lie in a bucket. The
    report is one HTML file that needs neither a network nor a script, so it can be sent and printed. It contains a
    limited number of pictures; the complete list of suspects is in a file of its own. See docs/report.md.
    """
    if run.dry_run:
        from diffclean.report.write import write_report

        written, said = write_report(folder, out, dry_run=True), "Would write"
    else:
        written, said = report(folder, out=out), "Wrote"
    return frame.Result(written, [written.verdict, *written.reasons, f"{said} {written.page}."])
