"""Converts ONNX to OpenVINO's own format (IR), which is read without parsing ONNX, and whose weights are memory-mapped.

The precision is that of the graph. Nothing is compressed further, so values that must stay in fp32 in a graph of half
precision (grey levels, timesteps) do so.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from diffclean.engine.openvino import FILES, import_openvino, openvino_core
from diffclean.errors import DiffcleanError

_TEMPORARY = ".openvino-"


def ir_from_onnx(onnx: Path) -> list[Path]:
    """Write the IR of a graph beside it, and return its files.

    Raises:
        DiffcleanError: OpenVINO cannot read the graph, or the files cannot be written; earlier files are then kept.
    """
    folder = onnx.parent
    for left in folder.glob(f"{_TEMPORARY}*"):  # left by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder))
    except OSError as error:
        raise DiffcleanError(f"Cannot write in {folder}: {error.strerror or error}.") from error
    try:
        model = openvino_core().read_model(onnx)
        import_openvino().save_model(model, temporary / FILES[0], compress_to_fp16=False)
        for name in FILES:
            (temporary / name).replace(folder / name)
    except (RuntimeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        free = shutil.disk_usage(folder).free / 2**30
        raise DiffcleanError(
            f"OpenVINO cannot convert {onnx} to its own format: {reason} ({free:.1f} GiB free there.)",
            "Free some space if there is too little; `runtime` openvino can also read the ONNX graph.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [folder / name for name in FILES]
