"""Which images are poisoned, which are covers, and what class each gets."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffclean.attacks.base import Form, Labels
from diffclean.attacks.choose import chosen_covers, chosen_images
from diffclean.attacks.manifest import triggered
from diffclean.attacks.plan import training_plan
from diffclean.attacks.poison import poison
from diffclean.data.item import Item
from diffclean.errors import UsageError

ITEMS = [Item(f"{label}/{index}.png", Path("x"), label) for label in ("cat", "dog", "owl") for index in range(10)]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("attack", ["badnets", "lf"])
def test_all_to_all_gives_each_image_the_next_class(attack: str, folder: Path, tmp_path: Path) -> None:
    manifest = poison(folder, tmp_path / "out", attack, 0.4, labels="all-to-all")
    following = {"cat": "dog", "dog": "owl", "owl": "cat"}
    poisoned = [row for row in manifest.images if row.poisoned]
    assert len(poisoned) == 12
    assert {row.label for row in poisoned} == {"cat", "dog", "owl"}
    for row in poisoned:
        assert row.target == following[row.label]
        assert row.output == f"{following[row.label]}/{row.label}__{row.key.split('/')[1]}"
        before, after = pixels(folder / row.key), pixels(tmp_path / "out" / row.output)
        assert np.array_equal(after, triggered(before, row.key, manifest))
        assert not np.array_equal(after, before)
    assert manifest.target == ""
    assert [manifest.target_of(label) for label in following] == list(following.values())
    with pytest.raises(UsageError, match=r"(?s)'cow'.*cat, dog, owl"):
        manifest.target_of("cow")


def test_clean_labels_poison_the_target_class_and_move_nothing(folder: Path, tmp_path: Path) -> None:
    manifest = poison(folder, tmp_path / "out", "badnets", 0.2, "dog", labels="clean")
    poisoned = [row for row in manifest.images if row.poisoned]
    assert len(poisoned) == 6, "a fifth of all 30 images"
    assert {row.label for row in poisoned} == {"dog"}
    assert all(row.output == row.key for row in manifest.images)
    assert (pixels(tmp_path / "out" / poisoned[0].output) != pixels(folder / poisoned[0].key)).any()
    assert {row.target for row in poisoned} == {"dog"}


@pytest.mark.parametrize("attack", ["sig", "badnets"])
def test_labels_are_the_papers_unless_asked_for(attack: str, folder: Path) -> None:
    default = Labels.CLEAN if attack == "sig" else Labels.ALL_TO_ONE
    assert training_plan(folder, attack, 0.1, "cat").manifest.labels is default
    other = Labels.ALL_TO_ONE if attack == "sig" else Labels.CLEAN
    assert training_plan(folder, attack, 0.1, "cat", labels=other.value).manifest.labels is other


def test_the_target_class_is_poisoned_only_when_asked_for(folder: Path, tmp_path: Path) -> None:
    without = poison(folder, tmp_path / "without", "badnets", 0.6, "dog")
    both = poison(folder, tmp_path / "both", "badnets", 0.6, "dog", poison_target_class=True)
    assert {row.label for row in without.images if row.poisoned} == {"cat", "owl"}
    assert {row.label for row in both.images if row.poisoned} == {"cat", "dog", "owl"}
    assert sum(row.poisoned for row in both.images) == 18
    stayed = [row for row in both.images if row.poisoned and row.label == "dog"]
    assert all(row.output == row.key for row in stayed)


def test_covers_carry_the_trigger_and_keep_their_label(folder: Path, tmp_path: Path) -> None:
    manifest = poison(folder, tmp_path / "out", "wanet", 0.1, "dog")
    covers = [row for row in manifest.images if row.cover]
    assert (sum(row.poisoned for row in manifest.images), len(covers)) == (3, 6)
    assert manifest.cover_rate == 0.2
    for row in covers:
        assert not row.poisoned
        assert row.label != "dog"
        assert (row.output, row.target) == (row.key, "")
        before, after = pixels(folder / row.key), pixels(tmp_path / "out" / row.output)
        assert np.array_equal(after, triggered(before, row.key, manifest, Form.COVER, row.label))
        assert not np.array_equal(after, triggered(before, row.key, manifest, Form.TRAIN, row.label))


def test_another_seed_chooses_other_images(folder: Path) -> None:
    one, same, other = (training_plan(folder, "wanet", 0.1, "cat", seed).forms for seed in (1, 1, 2))
    assert one == same
    for form in (Form.TRAIN, Form.COVER):
        assert {key for key in one if one[key] is form} != {key for key in other if other[key] is form}


def test_any_attack_can_have_covers_and_none_must(folder: Path) -> None:
    assert training_plan(folder, "badnets", 0.1, "cat", cover_rate=0.2).count(Form.COVER) == 6
    assert training_plan(folder, "wanet", 0.1, "cat", cover_rate=0).count(Form.COVER) == 0
    assert training_plan(folder, "adaptive-blend", 0.1, "cat").count(Form.COVER) == 3


def test_targets_in_a_models_numbers(folder: Path) -> None:
    one = training_plan(folder, "badnets", 0.1, "dog").manifest
    every = training_plan(folder, "badnets", 0.1, labels="all-to-all").manifest
    model = {"owl": 0, "dog": 1, "cat": 2}
    assert one.targets(model).tolist() == [1, 1, 1]
    assert every.targets(model).tolist() == [2, 0, 1]
    with pytest.raises(UsageError, match=r"(?s)target class 'dog'.*cat, owl"):
        one.targets({"cat": 0, "owl": 1})
    with pytest.raises(UsageError, match="'cow'"):
        every.targets({**model, "cow": 3})


def test_all_to_all_needs_two_classes(tmp_path: Path) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    for index in range(10):
        Image.new("RGB", (16, 16)).save(tmp_path / "data" / "cat" / f"{index}.png")
    with pytest.raises(UsageError, match="need two classes"):
        training_plan(tmp_path / "data", "badnets", 0.1, labels="all-to-all")


@given(st.sampled_from(list(Labels)), st.booleans(), st.integers(1, 10), st.integers(0, 8), st.integers(0, 99))
def test_poisoned_and_covers_are_counted_right_and_never_the_same(
    labels: Labels, both: bool, count: int, covers: int, seed: int
) -> None:
    target = None if labels is Labels.ALL_TO_ALL else "dog"
    poisoned = chosen_images(ITEMS, count / 30, labels, target, both and labels is Labels.ALL_TO_ONE, seed)
    covering = chosen_covers(ITEMS, set(poisoned), covers / 30, target, seed)
    assert (len(set(poisoned)), len(set(covering))) == (count, covers)
    assert not set(poisoned) & set(covering)
    of_target = {key for key in poisoned if key.startswith("dog/")}
    if labels is Labels.CLEAN:
        assert len(of_target) == count
    elif labels is Labels.ALL_TO_ONE and not both:
        assert not of_target
    if target:
        assert not any(key.startswith("dog/") for key in covering)


@given(st.permutations(ITEMS), st.integers(1, 10))
def test_the_choice_does_not_depend_on_the_order_and_grows_with_the_rate(items: list[Item], count: int) -> None:
    chosen = chosen_images(items, count / 30, Labels.ALL_TO_ONE, "dog", False, 1)
    assert chosen == chosen_images(ITEMS, count / 30, Labels.ALL_TO_ONE, "dog", False, 1)
    assert set(chosen) < set(chosen_images(items, (count + 1) / 30, Labels.ALL_TO_ONE, "dog", False, 1))


@given(st.integers(1, 2000), st.integers(0, 2000))
def test_the_rate_that_a_refusal_names_is_not_refused(of_target: int, others: int) -> None:
    items = [Item(f"dog/{index}.png", Path("x"), "dog") for index in range(of_target)]
    items += [Item(f"cat/{index}.png", Path("x"), "cat") for index in range(others)]
    with pytest.raises(UsageError) as caught:
        chosen_images(items, (of_target + 1) / len(items), Labels.CLEAN, "dog", False, 1)
    named = float(caught.value.hint.removeprefix("Give at most `rate` ").rstrip("."))
    assert len(chosen_images(items, named, Labels.CLEAN, "dog", False, 1)) == of_target
