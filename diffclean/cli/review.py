"""`diffclean review`."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from diffclean.api.common import path_of
from diffclean.cli import frame


@frame.verb("review")
@click.argument("where", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), help="The data set.  [default: the one that the list was made from]"
)
@click.option(
    "--variations",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The output of `variate` to show beside the originals.  [default: those of `clean`, if there are any]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port on this machine; 0 takes a free one.")
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
def command(
    run: frame.Run, where: Path, data: Path | None, variations: Path | None, port: int, opens: bool
) -> frame.Result:
    """Go through the list of suspects in a browser, and keep or drop each image by click or key.

    DIR is a folder that `clean` wrote, a folder that holds suspects.json, or the file of a list. Decisions are written
    to the list, which the option --without of `train` and `distill` reads. The list as the detector wrote it is kept
    beside it. The page can be reached only from this machine and only with the printed address. Ctrl-C ends the review.
    """
    from diffclean.report.review import places_of
    from diffclean.report.review_server import ReviewServer

    server = ReviewServer(places_of(path_of(where), data, variations), port)
    try:
        with run.stopping() as stop:
            click.echo(f"Review {len(server.listed.rows())} suspects: {server.url}\nCtrl-C ends the review.", err=True)
            if opens:
                webbrowser.open(server.url)
            stop.wait()
    finally:
        server.close()
    dropped = sum(row.suspect for row in server.listed.rows())
    kept = len(server.listed.rows()) - dropped
    found = {"list": server.listed.path, "dropped": dropped, "kept": kept}
    return frame.Result(found, [f"{dropped} images are on {server.listed.path}; {kept} were kept."])
