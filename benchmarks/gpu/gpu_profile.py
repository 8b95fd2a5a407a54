"""Shows where the time of a call goes, by kernel and by group of kernels."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

GROUPS = {
    # Fused kernels carry the names of all that went into them: what they are stands at the front.
    "normalisation": r"triton_\w*norm",
    "elementwise": r"triton_(poi|red|per)|elementwise|vectorized|silu|gelu|sigmoid|upsample|interpolate|pointwise",
    "attention": r"flash|fmha|attention|sdpa|softmax",
    "convolution": r"conv|fprop|winograd|implicit_gemm",
    "matrix product": r"gemm|nvjet|cutlass|cublas|addmm|matmul|bmm|\bmm\b|linear|splitk",
    "normalisation ": r"norm|moments|welford",
    "layout and copies": r"nchw|nhwc|transpose|permute|copy|memcpy|memset|cat|contiguous|clone|\bto\b",
    "elementwise ": r"add|mul|div|sub|fill|exp|sin|cos|index",
}
"""Group -> what its kernels' names look like; the first that matches counts. A trailing space is no part of a name."""
_SHOWN = 15


def profile_of(call: Callable[[], Any]) -> dict[str, Any]:
    """Run `call` once under torch's profiler.

    Returns:
        `milliseconds` in all kernels, `groups` (name -> share of them) and `top`, the kernels that take longest. On a
        CPU, torch's operators stand for kernels.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        call()
        if on_gpu:
            torch.cuda.synchronize()
    found = []
    for event in recorded.key_averages():
        if on_gpu and event.device_type != DeviceType.CUDA:  # operators, whose kernels are told on their own
            continue
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        found.append((microseconds / 1000, event.count, event.key))
    found.sort(reverse=True)
    total = sum(milliseconds for milliseconds, _, _ in found)
    shares: dict[str, float] = {}
    for milliseconds, _, name in found:
        group = group_of(name)
        shares[group] = shares.get(group, 0.0) + milliseconds / max(total, 1e-9)
    return {
        "milliseconds": total,
        "groups": dict(sorted(shares.items(), key=lambda pair: -pair[1])),
        "top": [
            {"name": name[:160], "group": group_of(name), "milliseconds": milliseconds, "calls": calls}
            for milliseconds, calls, name in found[:_SHOWN]
        ],
    }


def group_of(kernel: str) -> str:
    """The group of a kernel, by its name."""
    lower = kernel.lower()
    return next((group.strip() for group, pattern in GROUPS.items() if re.search(pattern, lower)), "other")
