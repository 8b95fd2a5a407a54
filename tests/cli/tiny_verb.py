"""A command line with one small verb, for the tests of the frame; run as a program by those that need a process."""

import hashlib
import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from diffclean.cli import frame, outcome
from diffclean.errors import DiffcleanError, ExitCode, Interrupted, MissingExtraError, UsageError

log = logging.getLogger("diffclean.tiny")
ERRORS: dict[str, BaseException] = {
    "bug": RuntimeError("a broken thing"),
    "user": DiffcleanError("No such engine.", "Try another."),
    "usage": UsageError("That makes no sense."),
    "extra": MissingExtraError("openvino", "cpu"),
    "interrupted": Interrupted("Stopped after 3 images."),
    "ctrl-c": KeyboardInterrupt(),
    "memory": MemoryError(),
    "disk": OSError(28, "No space left on device", "x.png"),
    "full": OSError(28, "No space left on device"),
    "temporary": FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"),
    "pipe": BrokenPipeError(32, "Broken pipe"),
}


def in_a_library() -> None:
    """Hours within one call that no signal interrupts."""
    hashlib.pbkdf2_hmac("sha256", b"x", b"x", 2**31 - 1)


@frame.verb("tiny", writes=True)
@click.argument("source", default="here")
@click.option("-o", "--out", type=click.Path(), help="Where to.")
@click.option("--steps", type=click.IntRange(min=1), default=25, help="How many.")
@click.option("--rate", "poison_rate", type=float, default=0.5, help="How much.")
@click.option("--keep/--drop", default=False, help="Whether.")
@click.option("--tag", multiple=True, help="Any number.")
@click.option("--mode", default="ok")
def command(run: frame.Run, mode: str, **options: object) -> frame.Result:
    """Do something small.

    Args:
        run: not for people.
    """
    if mode in ERRORS:
        raise ERRORS[mode]
    if mode == "many":
        for number in range(2000):
            log.warning("line %d", number)
        Path(str(options["out"])).touch()
        return frame.Result({}, [f"line {number}" for number in range(2000)])
    if mode == "noise":
        if options["out"]:
            with Path(str(options["out"])).open("w") as file:
                os.system("echo from a child >&2")
                file.write("of the run\n")
        print("from Python")
        os.system("echo from a child")
        log.warning("take care")
        log.debug("a detail")
    if mode == "wait":
        with run.stopping() as stop:
            run.progress.begin("tiny", 1000)
            print("ready", file=sys.stderr, flush=True)
            while not stop.is_set():
                time.sleep(0.01)
                run.progress.advance(loss=0.5)
        return frame.Result({"stopped": True}, ["stopped"], ExitCode.INTERRUPTED)
    if mode in ("engine", "pool"):
        with run.stopping(), ThreadPoolExecutor(1) as pool:
            print("ready", file=sys.stderr, flush=True)
            if mode == "pool":
                pool.submit(in_a_library).result()
            in_a_library()
    if mode == "sleep":
        print("ready", file=sys.stderr, flush=True)
        time.sleep(30)
    some = ExitCode.SOME_FAILED if mode == "some" else ExitCode.DONE
    data = {**run.options, "sources": run.sources, "nan": float("nan")}
    return frame.Result(data, [f"{options['steps']} steps"], some)


@frame.verb("other")
@click.option("--width", type=int, default=64)
def other(run: frame.Run, width: int) -> frame.Result:
    """Another verb, so that files can have two tables."""
    return frame.Result({"width": width}, ["wide"])


@click.group()
def cli() -> None:
    """Tests only."""


cli.add_command(command)
cli.add_command(other)


def main(*args: str) -> int:
    return outcome.run(cli, args)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
