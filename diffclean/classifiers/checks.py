"""What is wrong with a classifier's file name or size, seen before any work; no torch here."""

from __future__ import annotations

from pathlib import Path

from diffclean.errors import UsageError


def check_size(wrong: list[str], size: int | None, name: str = "size") -> None:
    """Add to `wrong` where images would be too small for any network."""
    if size is not None and size < 16:
        wrong.append(f"`{name}` must be at least 16, not {size}")


def check_name(path: Path) -> None:
    """Refuse a file name that no classifier can be written to.

    Raises:
        UsageError: neither `.pt` nor `.safetensors`.
    """
    if path.suffix not in (".pt", ".safetensors"):
        raise UsageError(
            f"A classifier is a .pt or a .safetensors file, not {path.name!r}.", f"Try: `out` {path.stem}.pt"
        )
