"""Checks of a classifier's file name and image size, made before any work and without importing torch."""

from __future__ import annotations

from pathlib import Path

from diffclean.errors import UsageError


def check_size(wrong: list[str], size: int | None, name: str = "size") -> None:
    """Add a problem to `wrong` if images would be too small for any network."""
    if size is not None and size < 16:
        wrong.append(f"`{name}` must be at least 16, not {size}")


def check_name(path: Path) -> None:
    """Refuse a file name to which no classifier can be written.

    Raises:
        UsageError: the name ends neither in `.pt` nor in `.safetensors`.
    """
    if path.suffix not in (".pt", ".safetensors"):
        raise UsageError(
            f"A classifier is a .pt or a .safetensors file, not {path.name!r}.", f"Try: `out` {path.stem}.pt"
        )
