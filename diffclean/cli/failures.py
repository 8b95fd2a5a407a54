"""The images that a verb could not read, as it lists them at the end."""

from __future__ import annotations

SHOWN_FAILURES = 20


def failures(failed: dict[str, str]) -> list[str]:
    """Lines that list the images that could not be read, cut short."""
    if not failed:
        return []
    lines = [f"{len(failed)} images could not be read and were left out:"]
    lines += [f"  {key}: {why}" for key, why in list(failed.items())[:SHOWN_FAILURES]]
    return lines + ([f"  and {len(failed) - SHOWN_FAILURES} more."] if len(failed) > SHOWN_FAILURES else [])
