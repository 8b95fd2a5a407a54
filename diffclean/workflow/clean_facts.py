"""Collects the facts about a finished `clean` for the report."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffclean.attacks.manifest import read_poison_manifest
from diffclean.data.hashes import sha256_of
from diffclean.data.registry import stem_of
from diffclean.environment import package_versions
from diffclean.report.detected import chosen, detection
from diffclean.report.facts import (
    Cost,
    Counts,
    Detection,
    EngineFacts,
    Facts,
    Folder,
    Folders,
    Outcome,
    Regenerated,
    StepCost,
)
from diffclean.report.variation_run import facts_of_run, variations_of
from diffclean.results import plain
from diffclean.workflow.clean_job import Outcome as Done
from diffclean.workflow.clean_job import chain_of, places_of
from diffclean.workflow.outputs import STUDENT
from diffclean.workflow.prepare import Prepared
from diffclean.workflow.second_pass import passes_of
from diffclean.workflow.self_test import ATTACKS, measured_of

_HASHED = (*STUDENT, "suspects.json", "suspects.csv", "cleaned.csv")
_FILES = {
    "student.pt": "the clean classifier, for PyTorch",
    "student.safetensors": "the same as safetensors",
    "student.onnx": "the same as ONNX",
    "suspects.json": "the list of suspects, with every image's score",
    "suspects.csv": "the same as a table",
    "cleaned.csv": "a row for each file of the cleaned data set",
    "cleaned": "the cleaned data set",
    "state.json": "what was done, by content; the same command goes on from it",
    "work": "teachers, variations and measurements",
}


def facts_of(prepared: Prepared, done: Done, command: str) -> Facts:
    """Return the facts about a job.

    Args:
        prepared: the job with its decisions.
        done: what the steps achieved.
        command: the command that was typed.
    """
    config, out = prepared.config, prepared.config.out
    run = places_of(out).variations
    varied = facts_of_run(run)
    return Facts(
        name=Path(stem_of(str(config.data))).resolve().name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        folders=Folders(
            Folder.seen_from(out, config.data),
            Folder.seen_from(out, run),
            "suspects.json" if done.suspects is not None else "",
        ),
        counts=_counts(prepared, done),
        outcome=_outcome(prepared, done) if done.trained else None,
        detection=_detection(prepared, done, run),
        regenerated=_regenerated(varied.regenerated, done),
        self_test=done.self_test,
        gate=done.gate,
        cost=_cost(prepared),
        engine=_engine(varied.engine, prepared),
        settings=_settings(prepared, done, varied),
        seeds={"all": config.seed},
        versions={name: version for name, version in package_versions().items() if version} | dict(varied.versions),
        hashes={name: sha256_of(out / name) for name in _HASHED if (out / name).is_file()},
        files={name: what for name, what in _FILES.items() if (out / name).exists()},
        not_done=done.cannot,
        not_tested=_not_tested(done),
    )


def _counts(prepared: Prepared, done: Done) -> Counts:
    found, mirrored = prepared.found, done.mirrored
    told = [mirrored.told] if mirrored is not None and mirrored.told else []
    return Counts(
        images=found.images + len(found.unreadable),
        classes=found.classes,
        kept=done.kept,
        unreadable=len(found.unreadable),
        duplicates=found.copies,
        passed_over=found.passed_over,
        notes=(*prepared.notes, *told),
    )


def _outcome(prepared: Prepared, done: Done) -> Outcome:
    measured, config = done.measured, prepared.config
    if measured.teacher is None or measured.student is None:
        return Outcome()
    return Outcome(
        before=measured_of(measured.teacher),
        after=measured_of(measured.student),
        again=measured_of(measured.anew) if measured.anew is not None else None,
        test=str(config.test),
        attack=measured.student.attack or "",
        target=measured.student.target or "",
        fired=measured.student.fired,
        defense_effectiveness=measured.student.defense_effectiveness,
    )


def _detection(prepared: Prepared, done: Done, run: Path) -> Detection | None:
    if done.suspects is None or (listed := done.suspects.listed) is None:
        return None
    seed, poison = prepared.config.seed, prepared.config.poison
    keys = {image.key for images in chosen(listed, seed) for image in images}
    poisoned = None
    if poison is not None:
        poisoned = {row.output: row.poisoned for row in read_poison_manifest(poison).images}
    figures, added = done.suspects.against_manifest, passes_of(listed)
    return detection(listed, variations_of(run, keys), poisoned=poisoned, measured=figures, added=added, seed=seed)


def _regenerated(found: Regenerated | None, done: Done) -> Regenerated | None:
    kept = done.measured.variations
    if found is None or kept is None:
        return found
    return replace(found, label_preservation=kept.label_preservation, trigger_survival=kept.trigger_survival)


def _cost(prepared: Prepared) -> Cost:
    config = prepared.config
    steps = tuple(StepCost(step, seconds) for step, seconds in prepared.ledger.seconds.items())
    return Cost(steps, prepared.device, config.price_per_hour, config.currency, tuple(prepared.plan.gave_up))


def _engine(found: EngineFacts, prepared: Prepared) -> EngineFacts:
    _, _, rest = prepared.plan.engine.partition("/")
    runtime, _, precision = rest.partition("/")
    return replace(
        found,
        name=prepared.config.engine,
        licence=prepared.licence,
        fingerprint=found.fingerprint or prepared.plan.engine.partition("/")[0],
        runtime=found.runtime or runtime,
        precision=found.precision or precision,
    )


def _settings(prepared: Prepared, done: Done, varied: Facts) -> dict[str, dict[str, Any]]:
    chain = chain_of(prepared, done.mirrored)
    told = plain(asdict(prepared.config))
    return {
        "clean": {name: value for name, value in told.items() if value not in (None, "")},
        "train": {"arch": chain.teaching.arch, "size": chain.teaching.size, **plain(chain.teaching.loop.identity())},
        "distill": {
            "arch": chain.distilling.arch,
            "temperature": chain.distilling.temperature,
            "alpha": chain.distilling.alpha,
            "epochs": chain.distilling.loop.epochs,
        },
        "variate": dict(varied.settings.get("variate", {})),
    }


def _not_tested(done: Done) -> tuple[str, ...]:
    """What `report.limits` does not say of itself."""
    if done.self_test is None or not done.self_test.rows:
        return ()
    return (f"Attacks other than {', '.join(ATTACKS)} were not tried in the self-test.",)
