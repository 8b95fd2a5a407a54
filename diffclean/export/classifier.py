"""Writes a classifier of diffclean as ONNX."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffclean.classifiers.onnx_classifier import METADATA
from diffclean.data.atomic import make_folders, sync_folders, temporary_folder, write_error
from diffclean.errors import MissingExtraError
from diffclean.export.onnx import onnx_from_component, parity_of_onnx
from diffclean.families.base import Component, Port

log = logging.getLogger(__name__)


def onnx_from_classifier(model: nn.Module, path: Path, class_to_idx: Mapping[str, int], size: tuple[int, int]) -> None:
    """Write a classifier as ONNX: `images` (B, 3, H, W) float32 in [0, 1] -> `logits` (B, C), for any B.

    The normalisation is part of the graph, and the classes are in the metadata. The graph is compared with torch if a
    runtime is installed.

    Args:
        model: a `Classifier`.
        path: the file to write; weights of more than 256 MiB are written beside it.
        class_to_idx: the index of the logit by class name.
        size: (height, width) of the images.

    Raises:
        DiffcleanError: torch cannot export it, or the graph computes something else.
        WriteError: the file cannot be written.
    """
    plain = model.cpu().eval().to(memory_format=torch.contiguous_format)
    ports = (Port("images", "float32", (3, *size)),), (Port("logits", "float32", (len(class_to_idx),)),)
    component = Component(plain, *ports)
    make_folders(path.parent)
    try:
        with temporary_folder(path) as folder:
            _export(component, folder / path.name, {"class_to_idx": dict(class_to_idx), "size": list(size)}, path)
            for file in sorted(folder.iterdir()):
                file.replace(path.parent / file.name)
        sync_folders(path.parent)
    except OSError as error:
        raise write_error(error, path) from error


def _export(component: Component, made: Path, about: dict[str, Any], path: Path) -> None:
    """Write a component to `made`, compare it with torch, and add the metadata; `path` is its name in warnings."""
    import onnx

    onnx_from_component(component, made)
    try:
        parity_of_onnx(component, made)
    except MissingExtraError as error:
        log.warning("%s was not compared with torch: %s", path, error.message)
    graph = onnx.load(made, load_external_data=False)
    graph.metadata_props.add(key=METADATA, value=json.dumps(about))
    onnx.save(graph, made)
