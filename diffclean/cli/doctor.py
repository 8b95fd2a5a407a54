"""`diffclean doctor`."""

from __future__ import annotations

from diffclean.cli import frame
from diffclean.errors import ExitCode


@frame.verb("doctor")
def command(run: frame.Run) -> frame.Result:
    """Say what this machine can run, and what is missing for the rest.

    The report lists the processor, the memory, the GPUs and the libraries. It says which runtime `--runtime auto` would
    use, and for each runtime that does not work the reason and what to type. It also names the embedded model and what
    its weights may be used for. The exit code is 1 if no runtime works.
    """
    from diffclean.doctor import examine, lines

    report = examine()
    return frame.Result(report, lines(report), ExitCode.DONE if report.auto_runtime else ExitCode.CANNOT)
