"""`diffclean doctor`."""

from __future__ import annotations

from diffclean.cli import frame
from diffclean.errors import ExitCode


@frame.verb("doctor")
def command(run: frame.Run) -> frame.Result:
    """Say what this machine can run, and why not.

    Lists the processor, memory, GPUs and libraries; which runtime `--runtime auto` would use, and for each that does
    not work the reason and what to type; and the embedded model with what its weights may be used for. Exits with 1
    when no runtime works.
    """
    from diffclean.doctor import examine, lines

    report = examine()
    return frame.Result(report, lines(report), ExitCode.DONE if report.auto_runtime else ExitCode.CANNOT)
