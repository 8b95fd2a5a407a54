"""The file that a killed run goes on from. It lies beside the classifier and is removed when that is written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from diffclean.data.atomic import make_folders, write_whole
from diffclean.data.run_record import RunRecord, differences
from diffclean.errors import DiffcleanError

FORMAT = "diffclean-training-state"
FORMAT_VERSION = 1


class StateFile:
    """Where the state of one training run is kept.

    Args:
        path: the file.
        identity: what decides the weights, as JSON can say it; a run goes on only with the same.
        overwrite: a state of another run may be thrown away.
    """

    def __init__(self, path: Path, identity: dict[str, Any], overwrite: bool = False) -> None:
        self.path = path
        self.identity: dict[str, Any] = json.loads(json.dumps(identity, default=str))
        self.overwrite = overwrite

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state to go on from; None: there is none, so begin.

        Raises:
            DiffcleanError: it is of a run with other settings (named), or damaged.
        """
        if not self.path.exists():
            return None
        content = self._read(device)
        if content is None:
            if self.overwrite:
                return None
            raise DiffcleanError(
                f"{self.path} is damaged or is no state of a training run.",
                "Remove it, or add `overwrite`, to begin anew.",
            )
        changed = differences(RunRecord(content["identity"]), RunRecord(self.identity))
        if not changed:
            state: dict[str, Any] = content["state"]
            return state
        if self.overwrite:
            return None
        raise DiffcleanError(
            f"{self.path} holds a run with other settings:\n  " + "\n  ".join(changed),
            "Give the settings it was begun with to go on, add `overwrite` to begin anew, or name another `out`.",
        )

    def save(self, state: dict[str, Any]) -> None:
        """Write the state; the file appears whole, or the old one stays.

        Raises:
            WriteError: it cannot be written.
        """
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, "identity": self.identity, "state": state}
        whole = io.BytesIO()
        torch.save(content, whole)
        make_folders(self.path.parent)
        write_whole(self.path, whole.getvalue())

    def remove(self) -> None:
        """The run is over."""
        self.path.unlink(missing_ok=True)

    def _read(self, device: torch.device) -> dict[str, Any] | None:
        try:
            content = torch.load(self.path, map_location=device, weights_only=True)
        except Exception:  # damaged bytes raise whatever they like
            return None
        known = isinstance(content, dict) and content.get("format") == FORMAT and {"identity", "state"} <= set(content)
        return content if known and content.get("format_version") == FORMAT_VERSION else None
