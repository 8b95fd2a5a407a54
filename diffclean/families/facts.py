"""What is known of a model before anything of it is fetched: its licence, its size, its need of memory, its steps."""

from __future__ import annotations

from dataclasses import dataclass

from diffclean.families.registry import Recipe, load_recipe, recipe_names

_GIB = 2**30


@dataclass(frozen=True)
class ModelFacts:
    """Facts about the model of a recipe.

    Attributes:
        name: the name that `--engine` takes.
        family: its family; empty if that is not known before the model is fetched.
        license: what the weights may be used for.
        production: whether the licence lets everybody use the weights in production.
        fetched_bytes: the approximate size of what is fetched; None if it is not known, or if the files are here.
        run_bytes: the approximate memory that the weights take at work, in the precision that was asked for; None if it
            is not known.
        export_bytes: the approximate peak of memory in an export; None if it is not known.
        steps: the number of denoising steps that are run by default; None if the family is not known.
        unpinned: the places on a hub that the weights come from and whose revision is not a commit, so that the files
            may change; empty if there are none.
    """

    name: str
    family: str
    license: str
    production: bool
    fetched_bytes: int | None
    run_bytes: int | None
    export_bytes: int | None
    steps: int | None
    unpinned: list[str]


def about(recipe: Recipe, precision: str = "fp16") -> ModelFacts:
    """The facts about a recipe's model, with its memory in the precision."""
    size, defaults = recipe.parameters, recipe.defaults
    return ModelFacts(
        name=recipe.name,
        family=recipe.family,
        license=recipe.license_note,
        production=recipe.production,
        fetched_bytes=size.bytes_fetched if size and recipe.directory is None else None,
        run_bytes=size.bytes_to_run(precision) if size else None,
        export_bytes=size.bytes_to_export if size else None,
        steps=_steps(recipe.family, defaults) if defaults else None,
        unpinned=recipe.unpinned if recipe.directory is None else [],
    )


def shipped() -> list[ModelFacts]:
    """The facts about the models of all shipped recipes, by name."""
    return [about(load_recipe(name)) for name in recipe_names()]


def lines_about(facts: ModelFacts) -> list[str]:
    """The facts as lines of text, without those that are not known."""
    said = []
    if facts.license:
        said.append(f"Licence: {facts.license}{'' if facts.production else ' (NOT free for production)'}")
    sizes = [
        (facts.fetched_bytes, "about {} to fetch"),
        (facts.export_bytes, "about {} of memory to export"),
        (facts.run_bytes, "at least {} of memory to run"),
    ]
    known = [words.format(f"{count / _GIB:.1f} GiB") for count, words in sizes if count is not None]
    if facts.steps is not None:
        known.append(f"{facts.steps} denoising {'step' if facts.steps == 1 else 'steps'} by default")
    if known:
        sentence = ", ".join(known)
        said.append(f"Needs:   {sentence}")
    if facts.unpinned:
        places = " and ".join(facts.unpinned)
        said.append(f"Source:  {places}, not pinned to a commit: the files may change on the hub")
    return said


def _steps(family: str, defaults: dict[str, object]) -> int:
    """The steps that a run with the defaults takes; micro always begins at pure noise and takes all of them."""
    from diffclean.families.registry import family_named

    steps, strength = int(str(defaults["steps"])), float(str(defaults["strength"]))
    start = family_named(family).look(strength).start
    return min(steps, int(steps * start))
