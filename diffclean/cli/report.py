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
    help="The page.  [default: FOLDER/report.html]",
)
def command(run: frame.Run, folder: Path, out: Path | None) -> frame.Result:
    """Write the page that tells what was found in a data set and what was done to it.

    FOLDER is one that `clean` wrote, or one that `variate` wrote, of which there is less to tell. The page is one HTML
    file that needs neither a network nor a script, so it can be sent and printed. Pictures are taken into it, a limited
    number of them; the whole list of suspects is in its own file. See docs/report.md.
    """
    if run.dry_run:
        from diffclean.report.write import write_report

        written, said = write_report(folder, out, dry_run=True), "Would write"
    else:
        written, said = report(folder, out=out), "Wrote"
    return frame.Result(written, [written.verdict, *written.reasons, f"{said} {written.page}."])
