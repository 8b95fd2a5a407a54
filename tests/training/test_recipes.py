from pathlib import Path

import pytest

from diffclean.api.distill import distill_config
from diffclean.api.train import train_config
from diffclean.errors import UsageError
from diffclean.training.loop_config import LoopConfig
from diffclean.training.recipes import RECIPES, filled
from diffclean.training.train_config import TrainConfig


def test_recipes_set_the_same_settings() -> None:
    names = [set(settings) for settings in RECIPES.values()]
    assert all(each == names[0] for each in names)


def test_what_is_given_stays_and_the_rest_comes_from_the_recipe() -> None:
    assert filled("fast", {"epochs": 3, "optimizer": None, "seed": 7}) == {"epochs": 3, "optimizer": "muon", "seed": 7}


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match=r"(?s)'quick'.*standard or fast"):
        filled("quick", {"epochs": None})


@pytest.mark.parametrize("recipe", RECIPES)
def test_train_takes_a_recipe(recipe: str) -> None:
    nothing = dict.fromkeys(RECIPES[recipe])
    config = train_config(data="d", out="t.pt", recipe=recipe, **nothing, **fixed())
    assert config.arch == RECIPES[recipe]["arch"]
    assert config.loop.optimizer == RECIPES[recipe]["optimizer"]
    assert not config.loop.problems()
    if recipe == "standard":
        assert config == TrainConfig(Path("d"), Path("t.pt"))


def test_the_student_has_the_architecture_of_the_teacher_unless_the_recipe_names_one() -> None:
    nothing = dict.fromkeys(set(RECIPES["fast"]) - {"arch", "label_smoothing"})
    made = {
        recipe: distill_config("t.pt", "d", "s.pt", student=None, recipe=recipe, **nothing, **fixed())
        for recipe in RECIPES
    }
    assert made["standard"].student is None
    assert made["fast"].student == "airnet"
    assert made["fast"].loop.epochs == 8


def fixed() -> dict[str, object]:
    """The settings of the loop that no recipe changes."""
    loop = LoopConfig()
    return {name: value for name, value in vars(loop).items() if name not in RECIPES["fast"]}
