"""Load thousands of damaged and hostile weight files: each must be read or refused with a message, quickly.

A case is a file of one kind, changed by a random generator that is seeded with the run's seed, the kind and the case's
number. It is loaded in a child process, forked from one that has the libraries in memory, under limits of time and
memory that are set anew for each case. A child loads many cases, one after another, and is replaced by a new one after
anything but a file that was read or refused within the limits. A case fails if it raises an exception that is not a
message, ends by a signal, takes more than 2 s of CPU time or 300 MB, starts a program, writes a file, or contacts an
address.

python benchmarks/fuzz_weights.py --count 6000 --pieces fuzz_weights.pieces.json   # goes on where it was stopped
python benchmarks/fuzz_weights.py --kinds families --count 600 --name fuzz_weights_families    # some kinds only
python benchmarks/fuzz_weights.py --only onnx:17        # one case again, with its traceback
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import io
import json
import logging
import os
import random
import resource
import select
import signal
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fuzz_seeds import DATA, FAMILIES, make_seeds, recorded, signed
from record import Pieces, commit, write_result

_PIECE = 130
"""Cases that are kept together."""
LIMIT_S, KILLED_AFTER_CPU_S, KILLED_AFTER_S = 2.0, 20, 600
"""CPU time that a load may take; CPU and wall time after which it is ended, on a machine that others use too."""
LIMIT_MB, ADDRESS_SPACE_MB = 300, 4096
CASES_A_CHILD, GROWN_MB, LEFT_MB = 200, 100, 1
"""Cases after which a child is replaced, the memory of a case after which it is, and that after which it is tidied."""
GRAPH = "graph of an engine"
HOSTILE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e300, 10**9, 10**30, float("inf"), float("nan"), "", "x", "../../x", "/etc/passwd"),
    *("\x1b[31m\u202e", "\ud800", "a" * 5000, [], {}, [[]], [10**9], {"a": {}}, ["x"] * 2000),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="KIND:NUMBER: run one case and show its error")
    parser.add_argument("--kinds", help="only kinds that have this in their names; families: those of the families")
    parser.add_argument("--name", default="fuzz_weights", help="the name of the result file")
    parser.add_argument(
        "--pieces", type=Path, default=Path("fuzz_weights.pieces.json"), help="the file of finished pieces"
    )
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as work:
        os.environ["DIFFCLEAN_CACHE"] = str(Path(work) / "cache")
        seeds = make_seeds(Path(work) / "seeds")
        kinds = [kind for kind in sorted(LOADERS) if is_wanted(kind, options.kinds)]
        gc.freeze()  # otherwise a child would touch, and so copy, every object that it has inherited
        children = Children(seeds, Path(work), show=options.only is not None)
        if options.only:
            kind, _, number = options.only.partition(":")
            print(json.dumps(outcome_of(kind, int(number), options.seed, seeds[kind], children)))
            return 0

        def piece(first: int, last: int) -> dict[str, Any]:
            cases = [(kinds[n % len(kinds)], n // len(kinds)) for n in range(first, last)]
            outcomes = [outcome_of(kind, n, options.seed, seeds[kind], children) for kind, n in cases]
            return {"found": outcomes, "commit": commit()}

        pieces = Pieces(options.pieces, {"seed": options.seed, "kinds": kinds})
        made = [
            pieces.get(f"{first}-{last}", partial(piece, first, last), lambda made: list(filter(bad, made["found"])))
            for first in range(0, options.count, _PIECE)
            for last in [min(first + _PIECE, options.count)]
        ]
        children.end()
    figures = summary([outcome for piece in made for outcome in piece["found"]], options.seed)
    figures["commits"] = sorted({piece["commit"] for piece in made})
    write_result(options.name, figures, "files of this project's own making, changed at random")
    return int(bool(figures["failures"]))


def is_wanted(kind: str, asked: str | None) -> bool:
    """Whether a kind is to be fuzzed: all, those that have a word in their names, or those of the families."""
    return kind.endswith(FAMILIES) if asked == "families" else (asked or "") in kind


def bad(outcome: dict[str, Any]) -> bool:
    return outcome["ended"] not in ("read", "refused") or outcome["cpu_s"] > LIMIT_S or outcome["mb"] > LIMIT_MB


def summary(found: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """What is written down: how every kind ended, the worst of it, and each failure with its number."""
    kinds = {kind: [each for each in found if each["kind"] == kind] for kind in sorted({f["kind"] for f in found})}
    return {
        "seed": seed,
        "cases": len(found),
        "limits": {"cpu_s": LIMIT_S, "mb": LIMIT_MB},
        "kinds": {
            kind: {
                "cases": len(each),
                **Counter(outcome["ended"].partition(":")[0] for outcome in each),
                "most_cpu_s": round(max(outcome["cpu_s"] for outcome in each), 2),
                "most_mb": round(max(outcome["mb"] for outcome in each)),
            }
            for kind, each in kinds.items()
        },
        "failures": [outcome for outcome in found if bad(outcome)],
    }


def outcome_of(kind: str, number: int, seed: int, original: Path, children: Children) -> dict[str, Any]:
    """Change a file, have it loaded in a child, and say how that ended."""
    rng = random.Random(f"{seed}:{kind}:{number}")
    place = LOADERS[kind][0]
    path = rng.choice(sorted(original.glob(place))) if "*" in place else original / place if place else original
    before = path.read_bytes()
    changed = MUTATIONS.get(path.suffix, mutated_bytes)(before, rng)
    path.write_bytes(signed(changed) if path.name == "engine.json" and rng.random() < 0.7 else changed)
    engine_json = (original / "engine.json").read_bytes() if kind == GRAPH else b""
    if kind == GRAPH and rng.random() < 0.9:
        recorded(original, place)
    outcome = children.loaded(kind)
    path.write_bytes(before)
    if kind == GRAPH:
        (original / "engine.json").write_bytes(engine_json)
    return {"kind": kind, "number": number, **outcome}


class Children:
    """One child at a time, which loads the files that it is told to, and is replaced after anything unusual.

    Args:
        seeds: the file or folder of each kind.
        work: the only folder in which a load may write.
        show: whether errors are printed with their tracebacks.
    """

    def __init__(self, seeds: dict[str, Path], work: Path, show: bool = False) -> None:
        self._seeds, self._work, self._show = seeds, work, show
        self._child, self._cases, self._used_s = 0, 0, 0.0

    def loaded(self, kind: str) -> dict[str, Any]:
        """How the load of the file of this kind ended, its seconds of CPU time and its megabytes."""
        if not self._child:
            self._begin()
        os.write(self._ask, f"{kind}\n".encode())
        self._cases += 1
        in_time = bool(select.select([self._told], [], [], KILLED_AFTER_S)[0])
        if in_time and (line := self._told.readline()):
            outcome: dict[str, Any] = json.loads(line)
            self._used_s += outcome["cpu_s"]
            if bad(outcome) or outcome["mb"] > GROWN_MB or self._cases >= CASES_A_CHILD:
                self.end()
            return outcome
        return self._gone("" if in_time else "killed: out of time")

    def end(self) -> None:
        """End the child, if there is one."""
        if self._child:
            self._gone("ended")

    def _begin(self) -> None:
        asked, self._ask = os.pipe()
        told, tell = os.pipe()
        self._child, self._cases, self._used_s = os.fork(), 0, 0.0
        if not self._child:
            os.close(self._ask)
            os.close(told)
            _serve(asked, tell, self._seeds, self._work, self._show)
        os.close(asked)
        os.close(tell)
        self._told = os.fdopen(told)

    def _gone(self, why: str) -> dict[str, Any]:
        """What is known of a case whose child ended, or is to end now."""
        if why:
            os.kill(self._child, signal.SIGKILL)
        _, status, usage = os.wait4(self._child, 0)
        os.close(self._ask)
        self._told.close()
        self._child = 0
        ended = f"killed: signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "crashed: no word"
        return {"ended": why or ended, "mb": 0, "cpu_s": usage.ru_utime + usage.ru_stime - self._used_s}


_ESCAPES: list[str] = []


def _serve(asked: int, tell: int, seeds: dict[str, Path], work: Path, show: bool) -> None:
    """Load what is asked for until nobody asks any more, and be gone."""
    sys.addaudithook(partial(_watched, work))
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)
    with os.fdopen(asked) as kinds:
        for kind in map(str.strip, kinds):
            outcome = _loaded(partial(LOADERS[kind][1], seeds[kind]), show)
            os.write(tell, json.dumps(outcome).encode() + b"\n")
            if outcome["mb"] > LEFT_MB:
                gc.collect()
                trim(0)  # what this case has left would hide what the next one takes
    os._exit(0)


def _watched(work: Path, event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that notes programs, addresses, and files written elsewhere."""
    programs = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn")
    if event in (*programs, "socket.connect", "socket.getaddrinfo"):
        _ESCAPES.append(event)
    if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and not arguments[0].startswith((str(work), "/dev/", "/proc/self/clear_refs")):
            _ESCAPES.append(f"open {arguments[0]}")


def _loaded(load: Callable[[], object], show: bool) -> dict[str, Any]:
    """Load under limits, and say how it ended."""
    from diffclean.errors import DiffcleanError

    _limit(resource.RLIMIT_AS, _address_space() + ADDRESS_SPACE_MB * 2**20)
    before = _cpu_s()
    _limit(resource.RLIMIT_CPU, int(before) + 1 + KILLED_AFTER_CPU_S)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    first = _peak_mb()
    _ESCAPES.clear()
    try:
        load()
        ended = "read"
    except DiffcleanError:
        ended = "refused"
        if show:
            traceback.print_exc()
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        ended = f"crashed: {type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {str(error)[:100]}"
        if show:
            traceback.print_exc()
    if _ESCAPES:
        ended = f"escaped: {_ESCAPES[0]}"
    return {"ended": ended, "mb": _peak_mb() - first, "cpu_s": _cpu_s() - before}


def _limit(kind: int, most: int) -> None:
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bytes other, cut, doubled, or of another place."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        at = rng.randrange(len(content)) if rng.random() < 0.5 else rng.randrange(min(len(content), 512))
        length = rng.choice((1, 1, 4, 8, 64))
        kind = rng.randrange(5)
        if kind == 0:
            content[at : at + length] = rng.randbytes(length)
        elif kind == 1:
            content[at : at + length] = rng.choice((b"\xff", b"\x00", b"\x7f")) * length
        elif kind == 2:
            del content[at : at + length]
        elif kind == 3:
            content[at:at] = content[at : at + length]
        elif len(content) > 64 and rng.random() < 0.2:
            del content[rng.randrange(32, len(content)) :]
        if not content:
            content = bytearray(b"\x00")
    return bytes(content)


def mutated_json(data: bytes, rng: random.Random) -> bytes:
    """One or two values other than they should be, or bytes."""
    if rng.random() < 0.2:
        return mutated_bytes(data, rng)
    if rng.random() < 0.05:
        return b"[" * 10**5
    content = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        spots: list[tuple[Any, Any]] = [(content, key) for key in content] if isinstance(content, dict) else []
        while spots:  # down to any depth
            table, key = rng.choice(spots)
            inner = table[key]
            if isinstance(inner, dict | list) and inner and rng.random() < 0.7:
                spots = [(inner, key) for key in (inner if isinstance(inner, dict) else range(len(inner)))]
                continue
            if rng.random() < 0.15 and isinstance(table, dict):
                table[str(rng.choice(HOSTILE))[:100]] = table.pop(key)
            elif rng.random() < 0.1:
                del table[key]
            else:
                table[key] = copy.deepcopy(rng.choice(HOSTILE))
            break
    return json.dumps(content).encode()


def mutated_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Half of them in the header, as JSON."""
    if rng.random() < 0.5:
        return mutated_bytes(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = mutated_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", rng.choice((len(header), len(header), len(header), 2**40))) + header + data[8 + length :]


def mutated_archive(data: bytes, rng: random.Random) -> bytes:
    """Half of them within an entry, so that the archive itself is whole; some are packed."""
    if rng.random() < 0.4:
        return mutated_bytes(data, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    chosen = next(n for n in entries if n.endswith("data.pkl")) if rng.random() < 0.7 else rng.choice(sorted(entries))
    entries[chosen] = mutated_bytes(entries[chosen], rng)
    if rng.random() < 0.05:
        entries[chosen] = bytes(50 * 2**20)
    with zipfile.ZipFile(
        out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": mutated_json,
    ".safetensors": mutated_safetensors,
    ".pt": mutated_archive,
}


def _teacher(arch: str | None) -> Callable[[Path], object]:
    def load(path: Path) -> object:
        import torch

        from diffclean.classifiers import loading
        from diffclean.classifiers.classifier_file import ClassifierFile

        read = loading.load(ClassifierFile(path, arch=arch), DATA, torch.device("cpu"))
        return read.logits(torch.zeros(2, 3, 32, 32))

    return load


def _engine(directory: Path) -> object:
    from diffclean.runtime.choose import open_engine

    return open_engine(directory, "onnxruntime", threads=1)


def _model(directory: Path) -> object:
    from diffclean.families.registry import family_named, family_of, load_model
    from diffclean.variation.schedule import schedule_of, scheduler_for

    model = load_model(family_named(family_of(directory)), directory)
    return schedule_of(scheduler_for(model.scheduler), model.scheduler, 8)


def _poison(path: Path) -> object:
    from diffclean.attacks.manifest import read_poison_manifest

    return read_poison_manifest(path)


def _rows(path: Path) -> object:
    from diffclean.data.manifest import read_run_manifest

    return read_run_manifest(path)


LOADERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "classifier.pt": ("", _teacher(None)),
    "classifier.safetensors": ("", _teacher(None)),
    "state_dict.pt": ("", _teacher("resnet8-cifar")),
    "state_dict.safetensors": ("", _teacher("resnet8-cifar")),
    "classifier.onnx": ("", _teacher(None)),
    "engine.json": ("engine.json", _engine),
    GRAPH: ("vae_decoder/model.onnx", _engine),
    "model_index.json": ("model_index.json", _model),
    "scheduler_config.json": ("scheduler/scheduler_config.json", _model),
    "config.json of a U-Net": ("unet/config.json", _model),
    "weights of a U-Net": ("unet/diffusion_pytorch_model.safetensors", _model),
    "poison.json": ("", _poison),
    "manifest.parquet": ("", _rows),
    **{f"configurations of {family}": ("**/*.json", _model) for family in FAMILIES},
    **{f"weights of {family}": ("*/*.safetensors", _model) for family in FAMILIES},
}
"""Kind -> the file in its folder that is changed ("" where the kind is a file; of a pattern, any of the files that it
finds), and what loads it."""


if __name__ == "__main__":
    sys.exit(main())
