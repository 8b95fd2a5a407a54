"""`diffclean merge`."""

from __future__ import annotations

from pathlib import Path

import click

from diffclean.cli import frame


@frame.verb("merge")
@click.argument("outs", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(run: frame.Run, outs: tuple[Path, ...]) -> frame.Result:
    """Join the shards of `variate --shard I/N` that lie in OUTS into one data set with one manifest.

    OUTS is one folder that all shards wrote to, or several; then the variations of the others move into the first.
    """
    from diffclean.data.merge import merge_manifests

    manifest = merge_manifests(list(outs))
    return frame.Result({"manifest": manifest}, [f"Joined in {manifest}."])
