"""Every family through NVIDIA's compiler, which needs no GPU to build: each component parses and becomes an engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import MODELS

from diffclean.engine.manifest import read_engine_manifest
from diffclean.engine.tensorrt_targets import Profile
from diffclean.export.compiled import compile_engine
from diffclean.export.forms import CompileOptions

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(MODELS))
def test_every_component_compiles(engine_of: Callable[[str], Path], shared: Path, tmp_path: Path, family: str) -> None:
    """A graph that several families have, such as the decoder of most of them, is compiled once."""
    engine = Path(shutil.copytree(engine_of(family), tmp_path / "engine"))
    manifest = read_engine_manifest(engine)
    compiled = {name: shared / "compiled" / manifest.graph_sha256(name) for name in manifest.components}
    components = {name for name, mark in compiled.items() if not mark.exists()}
    left = {name: manifest.components[name] for name in components}
    replace(manifest, components=left).write(engine)
    options = CompileOptions(("tensorrt-rtx",), Profile(1, 2, 4), guided=True)
    made = compile_engine(engine, options)
    assert {outcome.form.component for outcome in made if outcome.made} == components
    assert {path.parent.name for path in engine.rglob("*.engine")} == components
    assert not [outcome for outcome in compile_engine(engine, options) if outcome.made]
    for name in components:
        compiled[name].parent.mkdir(exist_ok=True)
        compiled[name].touch()
