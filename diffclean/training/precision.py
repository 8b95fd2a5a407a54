"""The precision in which a network computes; its weights are always float32."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from diffclean import environment
from diffclean.errors import UsageError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def resolved_precision(name: str | None, device: torch.device) -> str:
    """bf16, fp16 or fp32; None stands for the fastest on the device.

    Raises:
        UsageError: fp16 is asked for on a CPU.
    """
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU: on a CPU it is slow and overflows.", "Use `precision` bf16 or fp32.")
    if name is not None:
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _cpu_likes_bf16() else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a network runs."""
    return torch.autocast(device.type, _DTYPES[precision], enabled=precision != "fp32")


def _cpu_likes_bf16() -> bool:
    """Whether bf16 is faster than fp32: with AMX, and on AMD.

    Intel's AVX-512 alone was a quarter slower (wrn-16-1, resnet8).
    """
    cpu = environment.cpu()
    return "amx_bf16" in cpu.instructions or ("avx512_bf16" in cpu.instructions and "AMD" in cpu.name)
