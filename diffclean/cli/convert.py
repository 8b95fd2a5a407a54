"""`diffclean convert`."""

from __future__ import annotations

from pathlib import Path

import click

from diffclean.api.convert import convert
from diffclean.cli import frame
from diffclean.data.registry import FORMATS, format_of, open_source

SHOWN_FAILURES = 20


@frame.verb("convert", writes=True, door=convert)
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(list(FORMATS)), help="The format of OUT.  [default: that of SOURCE]")
@click.option(
    "--label-from",
    metavar="WHERE",
    help="Where the labels are, for example a column or json:FIELD; see docs/formats.md.  [default: the usual place]",
)
def command(run: frame.Run, source: str, out: Path, to: str | None, label_from: str | None) -> frame.Result:
    """Write the data set SOURCE to the folder OUT in another format, with the images as they are.

    SOURCE is a folder of images, WebDataset tars ('x-{0000..0099}.tar'), Parquet files, a Hugging Face data set on disk
    or an .npz file. Labels, class names and other data of the images are kept if the format of OUT has a place for
    them. SOURCE and OUT may lie in buckets. No image is regenerated: see `diffclean variate` for that.
    """
    if run.dry_run:
        opened = open_source(source, label_from=label_from)
        count, classes = len(opened.items()), len(opened.class_to_idx)
        told = {"out": out, "format": to or format_of(source), "images": count, "classes": classes}
        lines = [f"{count} images of {classes} classes, as {told['format']}, into {out}.", "Nothing was written."]
        return frame.Result(told | {"passed_over": opened.passed_over.as_json()}, lines)
    with run.stopping() as stop:
        done = convert(source, out, to=to, label_from=label_from, progress=run.progress, stop=stop)
    lines = [f"{done.images} images of {done.classes} classes are in {done.out}, as {done.format}."]
    if done.failed:
        lines.append(f"{len(done.failed)} could not be read and are left out:")
        lines += [f"  {key}: {why}" for key, why in list(done.failed.items())[:SHOWN_FAILURES]]
        if len(done.failed) > SHOWN_FAILURES:
            lines.append(f"  and {len(done.failed) - SHOWN_FAILURES} more, all of them in --json.")
    return frame.Result(done, lines, done.exit_code)
