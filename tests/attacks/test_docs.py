"""docs/attacks.md names every attack with what it is, and its example works."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from diffclean.attacks.base import Attack, Form
from diffclean.attacks.draws import image_draws
from diffclean.attacks.registry import ATTACKS, get

PAGE = (Path(__file__).parents[2] / "docs" / "attacks.md").read_text(encoding="utf-8")


def section(name: str) -> str:
    """The text under the heading of an attack."""
    return PAGE.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_has_a_section_with_its_source_and_defaults(name: str) -> None:
    text = section(name)
    assert get(name).citation in " ".join(text.split())
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", text, re.MULTILINE))
    assert rows == {key: json.dumps(value) for key, value in get(name).default_parameters.items()}


def test_the_table_says_what_the_attacks_say() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| (\S+) \| ([\d.]+) \| [^|]+ \| (yes|no) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (attack.name, str(attack.labels), f"{attack.cover_ratio:g}", "yes" if attack.like_corruptions else "no")
        for attack in map(get, ATTACKS)
    ]


def test_the_example_is_a_whole_attack() -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    names: dict[str, object] = {}
    exec(code[1], names)
    attack: Attack = names["Stripe"]()  # type: ignore[operator]
    image = np.zeros((8, 9, 3), np.uint8)
    triggered = attack.apply(image, image_draws(1, "x"), attack.resolve({"level": 7}, 1), Form.TRAIN, "cat")
    assert np.unique(triggered).tolist() == [0, 7]
    assert all(hasattr(attack, member) for member in vars(Attack) if not member.startswith("_"))
