"""Renders the tables about models themselves: exports of full size, `micro` in INT8, the fast recipe."""

from __future__ import annotations

from typing import Any

from render_gpu import where

from diffclean.evaluation.metrics import rate

_DENOISERS = ("unet", "transformer")


def full_size(result: dict[str, Any]) -> str:
    """Export, and where it was measured compilation, of models of full size."""
    figures = result["figures"]
    families = {name: found for name, found in figures.items() if isinstance(found, dict)}
    compiled = any("compile" in found for found in families.values())
    how = (
        f", batches of {figures['batch']}; {where(result)}, busy with other work). Compiled by TensorRT-RTX without a "
        "GPU, so never executed; one denoising step and one decoding of the graphs on OpenVINO, in fp32, are compared "
        "with torch."
        if compiled
        else f"; {where(result)}, busy with other work). A run of `diffclean export`; mapped files count as memory."
    )
    more = ("compile", "U-Net against torch, relative") if compiled else ("CPU seconds", "engine", "largest error")
    columns = ("family", "parameters of the denoiser", "export", *more)
    lines = [
        f"**Models of full size, random weights** ({figures['precision']}{how}",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    lines += [f"| {name} | {' | '.join(_cells(found, compiled))} |" for name, found in families.items()]
    notes = [f"{name}: {found['make']['note']}." for name, found in families.items() if "note" in found["make"]]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _cells(found: dict[str, Any], compiled: bool) -> list[str]:
    parameters = found["make"]["parameters"]
    denoiser = next(parameters[name] for name in _DENOISERS if name in parameters)
    cells = [f"{denoiser / 1e6:.0f} M", _taken(found["export"])]
    if compiled:
        difference = found["step_in_openvino"]["difference_to_torch"]["unet.0"]["relative"]
        return [*cells, _taken(found["compile"]), f"{difference:.1e}"]
    if not found["export"]["ok"]:
        return [*cells, f"{found['export']['cpu_seconds']:.0f}", "none", "none"]
    errors = [part["parity"]["max_relative"] for part in found["export"]["components"].values()]
    size = found["export"]["bytes"] / 1e9
    return [*cells, f"{found['export']['cpu_seconds']:.0f}", f"{size:.1f} GB", f"{max(errors):.1e}"]


def _taken(step: dict[str, Any]) -> str:
    return f"{'' if step['ok'] else 'failed after '}{step['seconds']:.0f} s, {step['peak_gib']:.1f} GiB"


def fast_recipe(result: dict[str, Any]) -> str:
    """The accuracy of a classifier of the fast recipe, and the time that its training takes."""
    return _training(result, "The fast recipe, measured", "")


def timm_loop(result: dict[str, Any]) -> str:
    """The same of timm's own training loop."""
    loop = result["figures"]["loop"]
    settings = (
        f"; {loop['optimizer'].upper()} with a rate of {loop['learning_rate']:.3f} and a {loop['schedule']} schedule, "
        f"weight decay {loop['weight_decay']:g}, label smoothing {loop['label_smoothing']:g}, crops of at least "
        f"{loop['smallest_crop']:.0%} of the image; nothing was searched for"
    )
    return _training(result, "The same network in timm's own loop, for as many epochs", settings)


def _training(result: dict[str, Any], title: str, settings: str) -> str:
    figures = result["figures"]
    right = rate(round(figures["test_accuracy"] * figures["test_images"]), figures["test_images"])
    lines = [
        f"**{title}** ({result['data']}, JPEG copies of the published arrays; {where(result)}, busy "
        f"with other work; {figures['precision']}, seed {figures['seed']}{settings}).",
        "",
        "| network | images | epochs | clean accuracy (95 %) | training | images/s |",
        "|---" * 6 + "|",
        f"| {figures['arch']} | {figures['images']:,} | {figures['epochs']} | {100 * right.value:.1f} "
        f"({100 * right.low:.1f}-{100 * right.high:.1f}) | {figures['seconds'] / 60:.0f} min | "
        f"{figures['images_per_second']:.0f} |",
    ]
    return "\n".join(lines) + "\n"


def int8_micro(result: dict[str, Any]) -> str:
    """Pictures and speed of the denoiser in INT8."""
    figures = result["figures"]
    lines = [
        f"**`micro` in INT8, an experiment** ({figures['library']}, post-training quantisation of the denoiser; "
        f"{result['data']}; {figures['images']} images, batch {figures['batch']}, one thread of OpenVINO; "
        f"{where(result)}, busy with other work). All forms were given the same noise. PSNR is the median. The speed "
        "is that of the sampler, without reading and writing.",
        "",
        "| steps | form | PSNR to fp32 | grey levels off | PSNR to the source | images/s | against bf16 |",
        "|---" * 7 + "|",
    ]
    for steps, forms in figures["steps"].items():
        for name, form in forms.items():
            if "images_per_second" not in form:
                lines.append(f"| {steps} | {name} | {form['psnr_to_fp32']:.1f} dB | | | | |")
                continue
            psnr = "" if form["psnr_to_fp32"] is None else f"{form['psnr_to_fp32']:.1f} dB"
            cells = [psnr, f"{form['grey_levels_off']:.2f}", f"{form['psnr_to_source']:.1f} dB"]
            cells += [f"{form['images_per_second']:.0f}", f"{form['to_bf16']:.2f}x"]
            lines.append(f"| {steps} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
