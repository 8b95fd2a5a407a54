from __future__ import annotations

from pathlib import Path

import pytest

from diffclean.errors import DiffcleanError, UsageError
from diffclean.export.export import Request, export
from diffclean.families.registry import FAMILIES, family_named, load_recipe, recipe_for, recipe_names
from diffclean.variation.settings import Settings, locate

RECIPE = """
family = "micro"
[source]
path = "weights"
[defaults]
steps = 5
strength = 0.5
scheduler = "ddim"
guidance = 1
batch = 4
"""


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_parses_and_its_family_exists(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert family_named(recipe.family).name == recipe.family
    settings = Settings(engine=name).resolved(recipe.defaults)  # raises when a default is out of range
    assert settings.sampler.steps == recipe.defaults["steps"]


@pytest.mark.parametrize("name", sorted({*recipe_names()} - {"micro"}))
def test_every_recipe_of_a_large_model_names_its_licence_and_its_size(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.license_note
    assert recipe.parameters is not None
    assert 10**8 < recipe.parameters.engine <= recipe.parameters.fetched < 10**11


def test_a_licence_that_forbids_production_is_said_before_the_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The message comes before the weights are looked for, which are missing here."""
    text = RECIPE.replace('family = "micro"', 'family = "micro"\nlicense = "for study"\nproduction = false')
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(DiffcleanError):
        export(Request(str(tmp_path / "study.toml")))
    assert "The weights of study are not free for production. Licence: for study." in caplog.text
    caplog.clear()
    with pytest.raises(DiffcleanError):
        locate(Settings(engine=str(tmp_path / "study.toml")))
    assert "not free for production" in caplog.text


def test_another_model_of_a_family_has_its_own_licence(tmp_path: Path) -> None:
    """The recipe's licence is that of its own weights."""
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    recipe = recipe_for(str(tmp_path))
    assert recipe.license_note.startswith("that of the checkpoint")
    assert recipe.parameters is None


def test_micro_is_shipped() -> None:
    assert "micro" in recipe_names()
    assert load_recipe("micro").license_note


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_the_name_it_is_known_by(name: str) -> None:
    assert family_named(name).name == name


def test_unknown_family() -> None:
    with pytest.raises(DiffcleanError, match=r"Known: (.|\n)*micro"):
        family_named("stable")


@pytest.mark.parametrize("name", ["nope", "./nope", "../../etc/nope"])
def test_unknown_engine_lists_the_known(name: str) -> None:
    with pytest.raises(UsageError, match=r"There is no engine(.|\n)*micro"):
        recipe_for(name)


def test_a_file_that_is_no_engine_is_called_so() -> None:
    with pytest.raises(UsageError, match="is a file and not an engine"):
        recipe_for("/etc/passwd")


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    recipe = recipe_for(str(path))
    assert (recipe.name, recipe.directory, recipe.defaults["batch"]) == ("mine", (tmp_path / "weights").resolve(), 4)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('family = "micro"', ""),
        ('family = "micro"', "family = 3"),
        ("steps = 5", ""),
        ("steps = 5", 'steps = "5"'),
        ("[source]", "[sauce]"),
        ("[source]\npath", "source"),
        ("[defaults]", "[default]"),
        ("batch = 4", "batch ="),
        ("[defaults]", "[parameters]\nengine = 5\n[defaults]"),
        ("[defaults]", '[parameters]\nengine = "x"\nfetched = 1\n[defaults]'),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, before: str, after: str) -> None:
    assert before in RECIPE
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.replace(before, after))
    with pytest.raises(UsageError, match=r"not a recipe|not valid TOML"):
        recipe_for(str(path))


def test_a_shipped_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `micro` that happens to lie here must not replace the default engine."""
    (tmp_path / "micro").mkdir()
    (tmp_path / "micro/model_index.json").write_text('{"_class_name": "MicroPipeline"}')
    monkeypatch.chdir(tmp_path)
    assert recipe_for("micro") == load_recipe("micro")
    assert recipe_for("./micro").directory == (tmp_path / "micro").resolve()


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    """It would otherwise be read from end to end, to hash it, before anyone noticed."""
    with pytest.raises(DiffcleanError, match=r"neither an engine(.|\n)*pretrain"):
        recipe_for(str(tmp_path))
