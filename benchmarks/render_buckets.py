"""The figures of docs/buckets.md: what kills leave, what was tried with which store, and what training holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

from render_gpu import table, where


def stores(result: dict[str, Any]) -> str:
    """What was checked against which server."""
    named = {"azurite": "az://", "fake_gcs_server": "gs://"}
    tried = {scheme: result["figures"][name] for name, scheme in named.items() if name in result["figures"]}
    checks = list(
        dict.fromkeys(check for each in tried.values() for check in (*each["names"], *each.get("failed", {})))
    )
    heads = [f"`{scheme}`: {each['server']}" for scheme, each in tried.items()]
    rows = [[check, *("yes" if check in each["names"] else "**no**" for each in tried.values())] for check in checks]
    first = f"**What was tried against servers on the same machine** ({result['data']}; {where(result)})."
    return "\n".join([first, "", *table(["", *heads], rows)]) + "\n"


def killed_in_bucket(result: dict[str, Any]) -> str:
    """Kills and failing requests survived by a run over tars in a bucket."""
    figures = result["figures"]
    waiting = max(kill["images_in_spool"] for kill in figures["kills"])
    each = figures["images"] // figures["tars"]
    return (
        f"**Kills and failing requests** ({result['data']}; {where(result)}): a run from tars to tars on an S3 server "
        f"on the same machine was killed {len(figures['kills'])} times, while {_refused(figures)}. {_left(figures)} "
        f"At the kills, at most {waiting} images waited to be packed, with {each} in a tar. {_costs(figures)}\n"
    )


def killed_on_ray(result: dict[str, Any]) -> str:
    """The same on a cluster, where actors and nodes end, too."""
    figures = result["figures"]
    times = Counter(figures["kills"])
    there = [state["tars_there"] for state in figures["at_kills"]]
    ended = f"the driver {times['driver']} times, an actor {times['actor']} times and a node {times['node']} times"
    return (
        f"**The same on a Ray cluster** of {figures['nodes']} nodes of one CPU (Ray {figures['ray']}; "
        f"{result['data']}; {where(result)}): {ended} ended without a word, while {_refused(figures)}. "
        f"{_left(figures)} Then {min(there)} to {max(there)} of the {figures['tars']} tars could be seen. "
        f"{_costs(figures, 'the driver')}\n"
    )


def trained_from_bucket(result: dict[str, Any]) -> str:
    """What a training holds whose images do not fit into memory."""
    figures = result["figures"]
    peak, temporary = figures["peak_memory_mb"], figures["temporary_files_mb"]["in_bucket"]
    equal = "the same weights as" if figures["weights_equal"] else "OTHER WEIGHTS than"
    passes = figures["epochs"] + 1
    return (
        f"**Training from tars in a bucket** ({result['data']}; {where(result)}): `train` with room for "
        f"{figures['memory_gib'] * 2**30 / 1e6:.1f} MB of decoded images read every image {passes} times. The peak of "
        f"memory was {peak['in_bucket']:,.0f} MB, {peak['tenth_in_bucket']:,.0f} MB with a tenth of the images, and "
        f"{peak['on_disk']:,.0f} MB from the same tars on disk; temporary files took {temporary:.1f} MB. It ended with "
        f"{equal} the training from disk.\n"
    )


def _refused(figures: dict[str, Any]) -> str:
    return f"{figures['requests_refused']:,} of {figures['requests']:,} requests were answered with 503"


def _left(figures: dict[str, Any]) -> str:
    once = "once" if figures["in_manifest_once"] else "NOT once"
    equal = "equal to" if figures["bytes_equal"] else "DIFFERENT FROM"
    seen = "whole" if figures["only_whole_tars_seen"] else "NOT whole"
    return (
        f"The output has every image {once}, its tars have bytes {equal} those of an undisturbed run of one process on "
        f"disk, and every tar that could be seen after a kill was {seen}."
    )


def _costs(figures: dict[str, Any], whose: str = "memory") -> str:
    peak = figures["peak_memory_mb"]
    of = "The peak of memory was" if whose == "memory" else f"The peak of memory of {whose} was"
    return (
        f"{of} {peak['in_bucket']:,.0f} MB, and {peak['on_disk']:,.0f} MB in the run on disk; temporary files took "
        f"{figures['peak_temporary_files_mb']:.1f} MB."
    )
