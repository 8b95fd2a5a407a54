"""Describes, before the work begins, what the data contains and what will be done."""

from __future__ import annotations

from collections.abc import Mapping

from diffclean.workflow.plan import duration
from diffclean.workflow.prepare import Prepared

_BUSY = 1.3
"""From here on, what other processes take is mentioned."""


def told(prepared: Prepared) -> list[str]:
    """Return lines that tell the user what the data contains and what will be done."""
    found, plan, config = prepared.found, prepared.plan, prepared.config
    sizes = list(found.sizes)
    lines = [
        f"{found.images:,} images in {len(found.classes)} classes ({found.bytes / 1e6:,.1f} MB), "
        f"{sizes[0] if len(sizes) == 1 else f'{len(sizes)} sizes up to {found.largest_side} px'}.",
        f"Classes: {_counts(found.classes)}.",
    ]
    if found.unreadable:
        key, why = next(iter(found.unreadable.items()))
        lines.append(f"{len(found.unreadable)} images cannot be read and are left out, such as {key} ({why}).")
    lines += prepared.notes
    lines += plan.cannot
    lines.append(f"Engine: {config.engine} ({plan.engine}). Licence: {prepared.licence or 'see the model'}.")
    if plan.trains:
        epochs = "1 epoch" if plan.epochs == 1 else f"{plan.epochs} epochs"
        lines.append(
            f"Classifiers: {plan.arch}, {epochs}, images {_shown(plan.size)}, on {prepared.device}. "
            f"Suspects: {_searched(prepared) if plan.searches else 'not looked for'}."
        )
        if config.looks_at_mirrored:
            lines.append("Training mirrors images unless a first look shows that this changes what they mean.")
    tested = f"{plan.self_test:,} images, 3 triggers" if plan.self_test else f"none, since {plan.no_self_test}"
    lines.append(f"Variations: {plan.variations} of each image. Self-test: {tested.rstrip('.')}.")
    lines += [f"To keep to the budget: {line}" for line in plan.gave_up]
    if config.test is None and plan.trains:
        lines.append("There is no test set (--test), so the clean accuracy will not be measured.")
    steps = ", ".join(f"{step} {duration(taken)}" for step, taken in plan.seconds.items())
    lines.append(f"Expected: about {duration(plan.total_s)} ({steps}).")
    if plan.searches and "suspects" not in plan.seconds:
        lines.append(f"How long the detector {config.detector} takes is not known, and not counted.")
    if plan.busy >= _BUSY:
        lines.append(
            f"Other processes use this machine now. If they go on, it takes about {plan.busy:.1f} times as long."
        )
    lines.append(
        f"Disk: about {plan.bytes / 1e6:,.0f} MB in {config.out}; {prepared.free_bytes / 1e9:,.0f} GB are free."
    )
    if prepared.goes_on:
        lines.append(
            f"Done by an earlier run, and done again only where something changed: {', '.join(prepared.goes_on)}."
        )
    return lines


def _searched(prepared: Prepared) -> str:
    again = ", and again by comparing the teachers" if prepared.plan.passes else ""
    return f"looked for by {prepared.config.detector}{again}"


def _counts(classes: Mapping[str, int], shown: int = 12) -> str:
    names = [f"{name} ({count:,})" for name, count in list(classes.items())[:shown]]
    return ", ".join(names) + (f" and {len(classes) - shown} more" if len(classes) > shown else "")


def _shown(size: int | None) -> str:
    return "as they are" if size is None else f"resized to {size} px"
