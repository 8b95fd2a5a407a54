"""The list of images that could not be read, which verbs print at the end."""

from __future__ import annotations

SHOWN_FAILURES = 20


def failures(failed: dict[str, str]) -> list[str]:
    """List the images that could not be read, at most `SHOWN_FAILURES` of them.

    Args:
        failed: the reason by the key of the image.

    Returns:
        The lines to print; none if no image failed.
    """
    if not failed:
        return []
    lines = [f"{len(failed)} images could not be read and were left out:"]
    lines += [f"  {key}: {why}" for key, why in list(failed.items())[:SHOWN_FAILURES]]
    return lines + ([f"  and {len(failed) - SHOWN_FAILURES} more."] if len(failed) > SHOWN_FAILURES else [])
