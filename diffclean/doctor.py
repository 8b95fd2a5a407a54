"""Finds out what this machine can run, and what is missing for the rest; the work of `diffclean doctor`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.bucket_access import Access, accesses
from diffclean.data.registry import FormatStatus, statuses
from diffclean.environment import Machine, machine
from diffclean.families.facts import ModelFacts, lines_about, shipped
from diffclean.results import WHERE_MEASURED, table
from diffclean.runtime import probe

if TYPE_CHECKING:
    from pandas import DataFrame

GIB = 2**30
LOW_DISK_BYTES = 5 * GIB
LOW_SHARED_MEMORY_BYTES = 256 * 2**20
WEIGHTS = (".safetensors", ".onnx", ".bin", ".xml")


@dataclass(frozen=True)
class WeightFile:
    """A file of weights.

    Attributes:
        file: its path in the folder of the model.
        bytes: its size.
        sha256: its hash.
    """

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class EmbeddedModel:
    """The model that is shipped with diffclean.

    Attributes:
        name: the name that `variate` takes.
        present: whether its weights are there.
        reason: why they are not; empty if they are.
        license: what the weights may be used for.
        files: the files of weights.
        folder: its folder; None if that is not known.
    """

    name: str
    present: bool
    reason: str
    license: str
    files: list[WeightFile]
    folder: str | None = field(default=None, metadata=WHERE_MEASURED)


@dataclass(frozen=True)
class Examination:
    """What this machine can run. In JSON, the facts about the machine are beside the other fields.

    Attributes:
        machine: facts about the machine.
        runtimes: what each runtime can do here, the best first.
        auto_runtime: the runtime that is used if none is named; None if none works.
        model: the model that is shipped with diffclean.
        problems: what the user should do something about.
        formats: the formats of data sets, and which of them work here.
        buckets: the schemes of addresses in buckets, and which of them work here.
        recipes: the variation models that `--engine` knows by name, with their licence, size and need of memory.
    """

    machine: Machine
    runtimes: list[probe.RuntimeStatus]
    auto_runtime: str | None
    model: EmbeddedModel
    problems: list[str]
    formats: list[FormatStatus] = field(default_factory=list)
    buckets: list[Access] = field(default_factory=list)
    recipes: list[ModelFacts] = field(default_factory=list)

    def for_json(self) -> dict[str, Any]:
        """The fields, with the facts about the machine beside them."""
        fields = dict(vars(self))
        return vars(fields.pop("machine")) | fields

    def to_pandas(self) -> DataFrame:
        """A table with a row for each runtime: name, usable, reason, hint, version, precision. Needs pandas."""
        return table(self.runtimes)

    def __str__(self) -> str:
        return "\n".join(lines(self))


def examine() -> Examination:
    """Examine everything. All installed runtime libraries are imported, so this takes seconds."""
    facts = machine()
    runtimes = probe.probe()
    best = next((status.name for status in runtimes if status.usable and status.name in probe.DRIVEN), None)
    model = embedded_model()
    problems = _problems(facts, best, model)
    return Examination(facts, runtimes, best, model, problems, statuses(), accesses(), shipped())


def embedded_model(name: str = "micro") -> EmbeddedModel:
    """The model that is shipped with diffclean: its folder, its files with size and sha256, and its licence."""
    from diffclean.errors import DiffcleanError
    from diffclean.families.registry import load_recipe

    try:
        recipe = load_recipe(name)
    except DiffcleanError as error:
        return EmbeddedModel(name, False, error.message, "", [])
    folder = recipe.directory
    assert folder is not None  # it ships with diffclean
    paths = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHTS) if folder.is_dir() else []
    files = [WeightFile(path.relative_to(folder).as_posix(), path.stat().st_size, _sha256(path)) for path in paths]
    reason = "" if files else f"there are no weights in {folder}"
    return EmbeddedModel(name, bool(files), reason, recipe.license_note or license_line(folder), files, str(folder))


def license_line(folder: Path) -> str:
    """The line of a model card that names the licence; "" if there is none."""
    for card in ("README.md", "MODEL_CARD.md"):
        if (folder / card).is_file():
            found = re.search(r"^\W*licen[cs]e\b\W*(\S.*)$", (folder / card).read_text(), re.IGNORECASE | re.MULTILINE)
            if found:
                return found[1].strip()
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problems(facts: Machine, best: str | None, model: EmbeddedModel) -> list[str]:
    """What the user should do something about."""
    problems = []
    if best is None:
        problems.append("No runtime works. Install one: pip install 'diffclean[cpu]'")
    if probe.both_wheels():
        wheel = "onnxruntime-gpu" if facts.gpus else "onnxruntime"
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other, so work may silently run "
            f"on the CPU. Keep one: {probe.ONE_WHEEL}{wheel}"
        )
    if not model.present:
        problems.append(f"The embedded model {model.name} is missing: {model.reason}.")
    if facts.cache.free_bytes < LOW_DISK_BYTES:
        problems.append(
            f"Only {_gib(facts.cache.free_bytes)} free at {facts.cache.folder}; "
            "engines of large models need more. Set DIFFCLEAN_CACHE to a folder on a larger disk."
        )
    shared = facts.shared_memory_bytes
    if shared is not None and shared < LOW_SHARED_MEMORY_BYTES and len(facts.gpus) > 1:
        problems.append(
            "/dev/shm is small, and training on several GPUs needs it. Type: docker run --shm-size=1g (or --ipc=host)"
        )
    return problems


def _gib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / GIB:.1f} GiB"


def lines(report: Examination) -> list[str]:
    """The report as lines of text."""
    facts = report.machine
    cpu, memory = facts.cpu, facts.memory_bytes
    installed = [f"{name} {version}" for name, version in facts.packages.items() if version]
    missing = [name for name, version in facts.packages.items() if not version]
    gpu_texts = [
        f"{gpu.name}, compute capability {gpu.capability_text}, {_gib(gpu.memory_bytes)}, "
        f"driver for CUDA {gpu.driver_cuda}"
        for gpu in facts.gpus
    ] or [f"none: {facts.why_no_gpu}"]
    said = [
        f"diffclean  {facts.diffclean}, Python {facts.python}, {facts.os}",
        f"CPU        {cpu.name}, {cpu.cores_usable:g} of {cpu.cores} cores usable, "
        f"{' '.join(cpu.instructions) or 'no wide instructions'}",
        f"Memory     {_gib(memory['total'])}, {_gib(memory['available'])} available",
        *(f"GPU        {text}" for text in gpu_texts),
        f"Cache      {facts.cache.folder}, {_gib(facts.cache.free_bytes)} free",
        f"Libraries  {', '.join(installed)}",
    ]
    if missing:
        said.append(f"           not installed: {', '.join(missing)}")
    said += ["", f"Runtimes, best first (--runtime auto takes {report.auto_runtime or 'none'}):"]
    for status in report.runtimes:
        title = f"{status.name} {status.version}".strip()
        precision = f" ({status.precision})" if status.precision else ""
        said.append(f"  {'yes' if status.usable else 'no ':3}  {title:26} {status.reason}{precision}")
        if status.hint:
            said.append(f"       {'':26} {status.hint}")
    said += ["", "Formats of data sets (docs/formats.md):"]
    for format in report.formats:
        said += _line(format.name, format)
    said += ["", "Data in buckets (docs/buckets.md):"]
    for access in report.buckets:
        said += _line(access.scheme, access)
    return [*said, *_recipe_lines(report), "", *_model_lines(report.model), *_problem_lines(report.problems)]


def _recipe_lines(report: Examination) -> list[str]:
    """The recipes, except that of the embedded model, which has lines of its own."""
    said = ["", "Models for variate --engine (docs/families.md); memory in fp16, the numbers are estimates:"]
    for facts in report.recipes:
        if facts.name != report.model.name:
            first, *others = lines_about(facts)
            said += [f"  {facts.name:22} {first}", *(f"  {'':22} {line}" for line in others)]
    return said if len(said) > 2 else []


def _line(name: str, status: FormatStatus | Access) -> list[str]:
    hint = [f"       {'':26} {status.hint}"] if status.hint else []
    return [f"  {'yes' if status.usable else 'no ':3}  {name:26} {status.reason}", *hint]


def _model_lines(model: EmbeddedModel) -> list[str]:
    if not model.present:
        return [f"Embedded model {model.name}: missing"]
    megabytes = sum(file.bytes for file in model.files) / 2**20
    return [
        f"Embedded model {model.name}: {megabytes:.1f} MiB, {model.folder}",
        *(f"  {file.file}  sha256 {file.sha256[:16]}..." for file in model.files),
        f"  Licence: {model.license or 'its model card names none'}",
    ]


def _problem_lines(problems: list[str]) -> list[str]:
    return ["", "To do:", *(f"  - {problem}" for problem in problems)] if problems else []
