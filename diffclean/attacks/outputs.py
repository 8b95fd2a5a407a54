"""The clean data sets that poisoned ones are made from, and the names of the poisoned images."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from diffclean.attacks.manifest import MANIFEST_FILE
from diffclean.data.classes import check_labelled
from diffclean.data.item import Item
from diffclean.data.keys import NAME_LIMIT_BYTES, key_bytes
from diffclean.data.places import place_of
from diffclean.data.registry import open_source
from diffclean.data.sources import Source
from diffclean.errors import DiffcleanError


def labelled(data: Path) -> Source:
    """The images of a clean labelled folder.

    Raises:
        DiffcleanError: it is poisoned already, or some images have no class.
    """
    source = open_source(data)
    if (place_of(data) / MANIFEST_FILE).is_file():
        raise DiffcleanError(
            f"{data} is already poisoned ({MANIFEST_FILE} is there).", "Start from the clean data set."
        )
    check_labelled(data, source.items())
    return source


def output_name(item: Item, given: str, key: str | None = None) -> str:
    """The key of an image in the poisoned data set, always PNG.

    An image that changes its class keeps the old one in its name.

    Args:
        item: the image in the clean data set.
        given: its class in the poisoned data set.
        key: its key in a folder of classes (`Source.name`); None stands for its own key.
    """
    folder, slash, name = (item.key if key is None else key).rpartition("/")
    stem = f"{folder}{slash}{name.rpartition('.')[0] or name}"
    if given == item.label:
        return f"{stem}.png"
    folder, _, name = stem.removeprefix(f"{item.label}/").rpartition("/")
    return "/".join(part for part in (given, folder, f"{item.label}__{name}.png") if part)


def distinct(outputs: dict[str, str]) -> dict[str, str]:
    """The same names, after a check.

    Raises:
        DiffcleanError: two images would need the same name (on a disk that ignores case), or a name is not possible.
    """
    owners: dict[str, str] = {}
    folders = {folder.as_posix(): key for key, output in outputs.items() for folder in PurePosixPath(output).parents}
    for key, output in outputs.items():
        if output in folders:
            raise DiffcleanError(
                f"{key} would become {output}, which is the folder of {folders[output]}.", "Rename one in the source."
            )
        if len(key_bytes(output.rpartition("/")[2])) > NAME_LIMIT_BYTES:
            raise DiffcleanError(
                f"The name of {key} is too long: it would become {output}.", "Rename it in the source."
            )
        other = owners.setdefault(output.casefold(), key)
        if other != key:
            raise DiffcleanError(f"{other} and {key} would both become {output}.", "Rename one of them in the source.")
    return outputs
