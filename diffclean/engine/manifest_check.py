"""Checks the content of an `engine.json`, which may come from anywhere, before anything is built from it."""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffclean.data.hashes import damage, is_inside
from diffclean.families.graphs import tensors_of

LARGEST_SIDE = 8192
"""The largest side of a square, in pixels."""
_LARGEST_PORT = 2**28
"""The largest count of numbers that an input or output of a component may have for one image."""
_DTYPES = ("float32", "uint8", "bool")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PRECISIONS = ("fp32", "fp16", "bf16")
STORED = ("int8", "fp8")
"""How weights may be stored in eight bits: whole numbers from -127 to 127, and floating-point numbers, E4M3FN."""


def check_content(content: Any) -> None:
    """Refuse content that no export writes.

    Args:
        content: the content of `engine.json`, as parsed JSON.

    Raises:
        ValueError: says where, what was expected, and what was found.
    """
    _be(isinstance(content, Mapping), "all of it", "an object", content)
    for name, kind in (("family", str), ("source", dict), ("scheduler", dict), ("components", dict), ("files", dict)):
        _be(isinstance(content.get(name), kind), name, "an object" if kind is dict else "a text", content.get(name))
    size = content.get("image_size")
    _be(type(size) is int and 1 <= size <= LARGEST_SIDE, "image_size", f"1 to {LARGEST_SIDE}", size)
    _check_files("files", content["files"])
    source = content["source"]
    _be(isinstance(source.get("path", ""), str), "source.path", "a text", source.get("path"))
    _check_files("source.files", source.get("files", {}))
    options = content.get("options", {})
    _be(isinstance(options, Mapping), "options", "an object", options)
    precision = options.get("precision", "fp32")
    _be(precision in _PRECISIONS, "options.precision", " or ".join(_PRECISIONS), precision)
    stored = options.get("weights")
    _be(stored in (None, *STORED), "options.weights", " or ".join(STORED), stored)
    for name, entry in content["components"].items():
        _be(_NAME.fullmatch(name) is not None, "components", "names of letters and underscores", name)
        _check_entry(f"components.{name}", entry)
    _be(isinstance(content.get("compiled"), list), "compiled", "a list", content.get("compiled"))
    for form in content["compiled"]:
        _be(
            isinstance(form, Mapping) and set(form) == {"component", "target", "files", "key"},
            "compiled",
            "forms",
            form,
        )
        _be(form["component"] in content["components"], "compiled", "a component of it", form["component"])
        _be(isinstance(form["target"], str), "compiled", "the name of a target", form["target"])
        _be(isinstance(form["key"], Mapping), "compiled", "a key", form["key"])
        _check_files("compiled", form["files"])


def _check_entry(where: str, entry: Any) -> None:
    _be(isinstance(entry, Mapping), where, "an object", entry)
    _be(isinstance(entry.get("parity"), Mapping), f"{where}.parity", "an object", entry.get("parity"))
    for side in ("inputs", "outputs"):
        _be(isinstance(entry.get(side), list), f"{where}.{side}", "a list", entry.get(side))
        for port in entry[side]:
            _be(isinstance(port, Mapping) and isinstance(port.get("name"), str), f"{where}.{side}", "ports", port)
            _be(isinstance(port.get("dtype"), str), f"{where}.{side}", " or ".join(_DTYPES), port.get("dtype"))
            shape = port.get("shape")
            sides = isinstance(shape, list) and len(shape) <= 8 and all(type(n) is int and n >= 0 for n in shape)
            _be(sides and math.prod(shape) <= _LARGEST_PORT, f"{where}.{side}", "a shape of a usual size", shape)


def _check_files(where: str, files: Any) -> None:
    _be(isinstance(files, Mapping), where, "names of files and their hashes", files)
    for name, digest in files.items():
        _be(isinstance(digest, str), where, f"a hash of {name}", digest)
        _be(is_inside(name), where, "files inside the folder", name)


def _be(holds: bool, where: str, expected: str, found: object) -> None:
    if not holds:
        raise ValueError(f"{where}: expected {expected}, found {str(found)[:80]}")


def unlisted(directory: Path, components: Mapping[str, Any], files: Mapping[str, str], graph: str) -> list[str]:
    """The files that a runtime would load from an engine directory without a recorded hash, one line for each.

    Args:
        directory: the engine directory.
        components: the components by place.
        files: the recorded files, path -> sha256.
        graph: the file name of a component's graph.
    """
    found = [f"{place}/{graph} is not among its files" for place in components if f"{place}/{graph}" not in files]
    for place in components:
        if (path := directory / place / graph).is_file():
            names = {f"{place}/{name}" for name in weights_beside(path)}
            found += [
                f"{place}/{graph} wants {name}, which is not among its files" for name in sorted(names - {*files})
            ]
    return found


def weights_beside(path: Path) -> set[str]:
    """The files in which an ONNX graph keeps weights, according to the graph. A damaged graph has none."""
    if not path.stat().st_size:
        return set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"location") < 0:  # the usual case, found without parsing hundreds of megabytes as protobuf
            return set()
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's DecodeError is not public; the runtime reports what is wrong
        return set()
    return {entry.value for tensor in tensors_of(model) for entry in tensor.external_data if entry.key == "location"}


def changed(directory: Path, components: Mapping[str, Any], files: Mapping[str, str], graph: str) -> list[str]:
    """What differs from the record in an engine directory, found by `unlisted` and `damage`."""
    return unlisted(directory, components, files, graph) or damage(directory, dict(files))
