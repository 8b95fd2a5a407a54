"""The rooms of diffclean import one another in one direction only, and nothing imports itself by a detour."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from diffclean.cli.main import VERBS
from diffclean.data.registry import FORMATS

PACKAGE = Path(__file__).parents[1] / "diffclean"

LAYERS = (
    {"cli"},
    {"api"},
    {"workflow", "doctor"},
    {"report"},
    {"detection", "evaluation", "variation", "training", "pretraining"},
    {"execution", "attacks", "export"},
    {"runtime"},
    {"engine", "classifiers", "datasets"},
    {"families"},
    {"data"},
    {"results", "display"},
    {"errors", "progress", "environment", "diffclean"},
)
"""From top to bottom: a room may import those of every layer below its own. Some are planned and not yet there."""
SIDEWAYS = {
    ("detection", "evaluation"),
    ("detection", "training"),
    ("pretraining", "training"),
    ("environment", "diffclean"),
}
"""What a room may import of its own layer beside itself."""


def imports_of(path: Path) -> set[str]:
    """The modules of diffclean that a file imports: anywhere in it, so in functions and for type checks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import; name the room"
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= modules or {str(node.module)}
    return {name for name in found if name.split(".")[0] == "diffclean"}


def name_of(path: Path) -> str:
    """`diffclean/data/keys.py` -> `diffclean.data.keys`."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """`diffclean.data.keys` -> `data`; `diffclean`, which holds the version, stands for itself."""
    return [*module.split("."), "diffclean"][1]


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}
IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}
IMPORTS["diffclean"] = set()
"""The door: what it names is for type checkers and for those who ask for it; importing it imports no room."""
LAYER_OF = {room: number for number, layer in enumerate(LAYERS) for room in layer}


def test_every_room_has_its_place() -> None:
    assert {room_of(module) for module in MODULES} <= LAYER_OF.keys()


def test_rooms_import_only_what_lies_below_them() -> None:
    arrows = {(room_of(module), room_of(found)): module for module in IMPORTS for found in IMPORTS[module]}
    wrong = {
        f"{room} -> {other} (in {module})"
        for (room, other), module in arrows.items()
        if room != other and LAYER_OF[room] >= LAYER_OF[other] and (room, other) not in SIDEWAYS
    }
    assert wrong == set(), "move what both need into a room below, or change the order here and in CONTRIBUTING.md"


def test_there_is_no_circle_of_rooms_and_none_of_modules() -> None:
    rooms: dict[str, set[str]] = {}
    for module, found in IMPORTS.items():
        rooms.setdefault(room_of(module), set()).update({room_of(other) for other in found} - {room_of(module)})
    TopologicalSorter(rooms).prepare()  # raises CycleError, which names the circle
    TopologicalSorter(IMPORTS).prepare()


def test_no_verb_imports_another() -> None:
    verbs = {where.split(":")[0] for where, _ in VERBS.values()}
    assert {(module, verb) for module in IMPORTS for verb in IMPORTS[module] & verbs} == set()


def test_formats_of_data_are_named_by_nobody_but_their_registry() -> None:
    """`open_source` and `open_sink` are the door; who names a format behind it works with that one alone."""
    formats = set(FORMATS.values())
    assert formats <= MODULES.keys()
    assert {(module, found) for module in IMPORTS for found in IMPORTS[module] & formats} == set()
