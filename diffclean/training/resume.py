"""The state file from which a killed run continues.

It is beside the classifier, and is removed when that is written.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from diffclean.data.atomic import make_folders, write_whole
from diffclean.data.run_record import RunRecord, differences
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import check_archive

FORMAT = "diffclean-training-state"
FORMAT_VERSION = 1


class StateFile:
    """The file with the state of one training run.

    Args:
        path: the file.
        identity: what determines the weights, as far as JSON can express it; a run continues only with the same.
        overwrite: whether the state of another run may be discarded.
    """

    def __init__(self, path: Path, identity: dict[str, Any], overwrite: bool = False) -> None:
        self.path = path
        self.identity: dict[str, Any] = json.loads(json.dumps(identity, default=str))
        self.overwrite = overwrite

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state to continue from; None if there is none.

        Raises:
            DiffcleanError: the state belongs to a run with other settings, which the message names, or it is damaged.
        """
        if not self.path.exists():
            return None
        content = self._read(device)
        if content is None:
            if self.overwrite:
                return None
            raise self.damaged()
        changed = differences(RunRecord(content["identity"]), RunRecord(self.identity))
        if not changed:
            state: dict[str, Any] = content["state"]
            return state
        if self.overwrite:
            return None
        raise DiffcleanError(
            f"{self.path} holds a run with other settings:\n  " + "\n  ".join(changed),
            "To continue it, give the settings with which it was started. Or add `overwrite` to start from the "
            "beginning, or name another `out`.",
        )

    def damaged(self) -> DiffcleanError:
        """The error for a file whose content cannot be used."""
        return DiffcleanError(
            f"{self.path} is damaged or is not the state of a training run.",
            "Remove it, or add `overwrite`, to start from the beginning.",
        )

    def save(self, state: dict[str, Any]) -> None:
        """Write the state; the file is written whole, or the old one stays.

        Raises:
            WriteError: it cannot be written.
        """
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, "identity": self.identity, "state": state}
        whole = io.BytesIO()
        torch.save(content, whole)
        make_folders(self.path.parent)
        write_whole(self.path, whole.getvalue())

    def remove(self) -> None:
        """Remove the file when the run is finished."""
        self.path.unlink(missing_ok=True)

    def _read(self, device: torch.device) -> dict[str, Any] | None:
        if not self.path.is_file():  # opening a pipe of that name would wait for ever
            return None
        try:
            check_archive(self.path)
            content = torch.load(self.path, map_location=device, weights_only=True)
        except Exception:  # damaged bytes can raise any kind of exception
            return None
        known = isinstance(content, dict) and content.get("format") == FORMAT
        whole = known and all(isinstance(content.get(part), dict) for part in ("identity", "state"))
        return content if whole and content.get("format_version") == FORMAT_VERSION else None
