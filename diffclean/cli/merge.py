"""`diffclean merge`."""

from __future__ import annotations

from pathlib import Path

import click

from diffclean.api.common import data_path_of
from diffclean.cli import frame


@frame.verb("merge")
@click.argument("outs", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(run: frame.Run, outs: tuple[Path, ...]) -> frame.Result:
    """Join the shards that `variate --shard I/N` wrote to OUTS into one data set with one manifest.

    OUTS is either the one folder that all shards wrote to, on disk or in a bucket, or several folders on disk. The
    variations in all other folders are linked or copied into the first one.
    """
    from diffclean.data.merge import merge_manifests

    manifest = merge_manifests([data_path_of(out) for out in outs])
    return frame.Result({"manifest": manifest}, [f"The shards are joined; the manifest is {manifest}."])
