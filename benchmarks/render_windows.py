"""Renders the table for `--detail`: what photographs keep, how much of a trigger passes, and what it costs."""

from __future__ import annotations

from typing import Any

from render_gpu import where


def windows_table(result: dict[str, Any]) -> str:
    """PSNR, passing of triggers and cost by strength and detail."""
    figures = result["figures"]
    sides = figures["longer_side_px"]
    step = "step" if figures["steps"] == 1 else "steps"
    lines = [
        f"**What `--detail` does** ({result['data']}, {sides[0]} to {sides[-1]} px on the longer side; "
        f"{figures['steps']} {step}, batch {figures['batch']}, engine {figures['engine'].split('/', 1)[1]}, "
        f"{where(result)}, busy with other work). PSNR is the median against the source. A trigger passes as the share "
        "of it that is found in the difference of the variations with it and without it, made with the same noise: "
        "1.0 is all of it, which says nothing yet of whether a teacher reacts. CPU seconds are those of one core.",
        "",
        "| strength | detail | PSNR at 256 px | at its own size | patch passes | noise blend | sinusoid | windows a "
        "picture | CPU seconds a picture |",
        "|---" * 9 + "|",
    ]
    for point in figures["points"]:
        psnrs = [f"{point[name]:.1f} dB" for name in ("psnr_256px_db", "psnr_own_size_db")]
        passed = [f"{point[f'{name}_passes']:.2f}" for name in ("patch", "blend", "sinusoid")]
        cells = [f"{point['strength']}", f"{point['detail']}", *psnrs, *passed]
        cells += [f"{point['windows']:.0f}", f"{point['cpu_seconds']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
