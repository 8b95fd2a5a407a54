"""Runs ONNX classifiers from any source as teachers. `export.classifier` writes those of diffclean."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffclean.classifiers.checkpoints import LARGEST_SIDE
from diffclean.classifiers.onnx_check import check_graph
from diffclean.data.classes import checked_classes
from diffclean.data.json_file import json_of
from diffclean.errors import DiffcleanError, MissingExtraError

log = logging.getLogger(__name__)

_LARGEST_BATCH = 256
METADATA = "diffclean"
"""The metadata entry in which graphs of diffclean state their classes and their size."""


@dataclass(frozen=True)
class OnnxClassifier:
    """A classifier that onnxruntime runs.

    Attributes:
        logits: (B, 3, H, W) float32, normalised as the graph needs it -> (B, C) float32, on the same device.
        size: the (height, width) that the graph needs; None if it takes any.
        class_to_idx: the classes that the graph states (those of diffclean do), else None.
    """

    logits: Callable[[Tensor], Tensor]
    size: tuple[int, int] | None
    class_to_idx: dict[str, int] | None


def load_onnx(path: Path, device: torch.device) -> OnnxClassifier:
    """Open an ONNX classifier that takes NCHW images and returns logits.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        DiffcleanError: the file cannot be read, or is not such a classifier.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime, which runs a classifier in ONNX,", "cpu") from None
    check_graph(path)
    wanted = ["CPUExecutionProvider"] if device.type == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    options = onnxruntime.SessionOptions()
    _limit_memory(onnxruntime, options)
    options.log_severity_level = 4  # log lines would show the graph's own names on the terminal; errors are raised
    try:
        # With its own fallback, the library prints the error, with the names in the graph, on standard output.
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # its errors have no common type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(f"{path} cannot be run by onnxruntime: {reason}") from error
    if session.get_providers()[0] != wanted[0]:
        log.warning("The ONNX classifier runs on the CPU, because this onnxruntime has no CUDA.")
    batch, size = _input_of(path, session)
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def logits(images: Tensor) -> Tensor:
        array = images.detach().float().cpu().contiguous()
        parts = []
        for part in array.split(batch or max(len(array), 1)):
            # A graph with a fixed batch always gets that many images; the result is cut to the real ones.
            filled = torch.cat([part, part[-1:].expand(batch - len(part), -1, -1, -1)]) if batch else part
            try:
                answer = session.run([output], {name: filled.numpy()})[0]
            except Exception as error:  # its errors have no common type
                raise RuntimeError(str(error)) from error
            parts.append(torch.as_tensor(answer)[: len(part)])
        return torch.cat(parts).to(images.device)

    return OnnxClassifier(logits, size, _stored_classes(path, session))


def _limit_memory(onnxruntime: Any, options: Any) -> None:
    """Limit the memory of graphs, whose sizes may depend on their input, to half of the machine's memory."""
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    with suppress(Exception):  # there is one for each process, so for a second classifier it exists already
        onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg({"max_mem": half}))
    options.add_session_config_entry("session.use_env_allocators", "1")


def _stored_classes(path: Path, session: Any) -> dict[str, int] | None:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    try:
        return None if text is None else checked_classes(json_of(text)["class_to_idx"])
    except (ValueError, KeyError, TypeError) as error:
        raise DiffcleanError(f"{path} is damaged: its metadata {METADATA!r} holds no classes.") from error


def _input_of(path: Path, session: Any) -> tuple[int | None, tuple[int, int] | None]:
    """The batch and the size that the graph needs; None if it takes any."""
    inputs = session.get_inputs()
    shape = inputs[0].shape
    images = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(shape) == 4
    if not images or (isinstance(shape[1], int) and shape[1] != 3):
        found = ", ".join(f"{one.name}: {one.type} {one.shape}" for one in inputs)
        raise DiffcleanError(
            f"{path} does not take images as a classifier must: one input, float32, (batch, 3, height, width). "
            f"It takes {found}.",
            "Export it with that layout (NCHW) and without preprocessing.",
        )
    batch, _, height, width = (side if isinstance(side, int) else None for side in shape)
    given = [side for side in (height, width) if side is not None]
    if not all(0 < side <= LARGEST_SIDE for side in given) or not 0 < (batch or 1) <= _LARGEST_BATCH:
        raise DiffcleanError(
            f"{path} takes {batch or 'any number of'} images of {width or 'any'} x {height or 'any'} px; expected are "
            f"at most {_LARGEST_BATCH} at once, of at most {LARGEST_SIDE} x {LARGEST_SIDE} px.",
            "Export it with a dynamic batch, or with a smaller one.",
        )
    return batch, (height, width) if height is not None and width is not None else None
