"""Models on a hub (a small one, here): what is fetched, what is kept, what is said when a model cannot be had."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from small_models import ADAPTER, saved

from diffclean.errors import DiffcleanError, UsageError
from diffclean.families.hub import fetched, files_to_fetch, located
from diffclean.families.registry import HubModel, Recipe, family_named, load_recipe, recipe_for

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PARTS = ("unet/*", "scheduler/*")
STEM = "unet/diffusion_pytorch_model"
SMALL = ("model_index.json", "unet/config.json", f"{STEM}.safetensors", "scheduler/a.json")


@dataclass
class Hub:
    """A hub with the model a/model, which is a folder, and perhaps with others."""

    folder: Path
    others: dict[str, Path] = field(default_factory=dict)
    served: list[str] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    """Status and error code of everything."""

    @staticmethod
    def files(folder: Path) -> dict[str, Path]:
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        path = path.partition("?")[0]
        if self.refusal is not None:
            return self.refusal[0], {"X-Error-Code": self.refusal[1]}, b""
        models = {"a/model": self.folder, **self.others}
        asked = path.removeprefix("/api/models")
        model = next((name for name in models if asked.startswith(f"/{name}/")), None)
        if model is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        files = self.files(models[model])
        if path.endswith("/revision/no-such"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if "/revision/" in path:
            listing = {"id": model, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            return 200, {}, json.dumps(listing).encode()
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": name} for name, file in files.items()
            ]
            return 200, {}, json.dumps(tree).encode()
        name = path.split("/", 5)[5]
        content = files[name].read_bytes()
        self.served.append(name)
        return 200, {"ETag": hashlib.sha1(content).hexdigest(), "X-Repo-Commit": COMMIT}, content


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    here = Hub(tmp_path / "served")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = here.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield here
    server.shutdown()


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub answers any more."""
    use_hub(monkeypatch, "http://127.0.0.1:9")


def test_of_weights_that_are_there_in_many_forms_one_is_fetched() -> None:
    """Stable Diffusion 1.5 has its U-Net six times, 17 GB."""
    kinds = (".bin", ".safetensors", ".fp16.bin", ".fp16.safetensors", ".non_ema.safetensors")
    others = ["v1-5.ckpt", "README.md", "safety_checker/model.safetensors", "unet/old/config.json", "unet/model.onnx"]
    assert files_to_fetch([*SMALL, *(f"{STEM}{kind}" for kind in kinds), *others], PARTS) == [
        "model_index.json",
        "unet/config.json",
        f"{STEM}.safetensors",
        "scheduler/a.json",
    ]


def test_shards_are_fetched_with_their_index() -> None:
    shards = [f"{STEM}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    names = ["model_index.json", "unet/config.json", f"{STEM}.safetensors.index.json", *shards]
    assert set(files_to_fetch(names, PARTS)) == set(names)


def test_vocabularies_are_fetched() -> None:
    names = [f"tokenizer/{name}" for name in ("vocab.json", "merges.txt", "tokenizer_config.json")]
    assert files_to_fetch(names, ("tokenizer/*",)) == ["model_index.json", *names]


def test_a_models_family_shows_when_it_is_there(hub: Hub) -> None:
    saved("sd-img2img", hub.folder)
    write(hub.folder, "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors", "README.md")
    recipe = located(recipe_for("a/model"))
    assert (recipe.family, recipe.name) == ("sd-img2img", "a--model")
    assert recipe.defaults["scheduler"] == ""
    assert recipe.directory is not None
    family_named(recipe.family).load(recipe.directory)
    assert not {"unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors", "README.md"} & set(hub.served)


def test_a_model_that_was_fetched_is_used_when_the_hub_is_gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        hub.folder,
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/a.json",
    )
    place = fetched(HubModel("a/model"), PARTS)
    cut_off(monkeypatch)
    assert fetched(HubModel("a/model"), PARTS) == place


def test_half_a_model_is_not_used_when_the_hub_is_gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        hub.folder,
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/a.json",
    )
    place = fetched(HubModel("a/model"), PARTS)
    (place / "unet/diffusion_pytorch_model.safetensors").unlink()
    cut_off(monkeypatch)
    with pytest.raises(DiffcleanError, match="cannot be fetched"):
        fetched(HubModel("a/model"), PARTS)


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_hub_that_cannot_be_reached(hub: Hub, monkeypatch: pytest.MonkeyPatch, revision: str) -> None:
    """With a commit, huggingface_hub would ask six times, for half a minute; it must be given up at once."""
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waited to try again"))
    cut_off(monkeypatch)
    with pytest.raises(
        DiffcleanError, match=r"cannot be fetched(.|\n)*no folder of that name(.|\n)*--engine path/to/model"
    ):
        fetched(HubModel("a/model", revision), PARTS)


def test_a_hub_that_is_broken(hub: Hub) -> None:
    hub.refusal = (500, "")
    with pytest.raises(DiffcleanError, match="cannot be fetched"):
        fetched(HubModel("a/model"), PARTS)


def test_an_unknown_model(hub: Hub) -> None:
    with pytest.raises(DiffcleanError, match=r"no folder b/model here, and no model of that name(.|\n)*spelling"):
        located(recipe_for("b/model"))


def test_an_unknown_revision(hub: Hub) -> None:
    with pytest.raises(DiffcleanError, match=r"a/model has no revision no-such"):
        located(recipe_for("a/model@no-such"))


def test_a_model_behind_terms(hub: Hub) -> None:
    hub.refusal = (403, "GatedRepo")
    with pytest.raises(DiffcleanError, match=r"accept its terms(.|\n)*hf auth login"):
        fetched(HubModel("a/model"), PARTS)


def test_files_that_are_not_the_recipes(hub: Hub) -> None:
    write(hub.folder, "model_index.json", "unet/config.json", "scheduler/a.json")
    model = HubModel("a/model", sha256={"unet/config.json": "0" * 64})
    with pytest.raises(DiffcleanError, match=r"not the model that the recipe was written for: unet/config.json"):
        fetched(model, PARTS)


def test_a_model_of_no_known_family(hub: Hub) -> None:
    write(hub.folder, "unet/config.json")
    (hub.folder / "model_index.json").write_text('{"_class_name": "PixArtSigmaPipeline"}')
    with pytest.raises(
        DiffcleanError, match=r"holds a PixArtSigmaPipeline(.|\n)*Known: (.|\n)*StableDiffusionPipeline"
    ):
        located(recipe_for("a/model"))
    assert hub.served == ["model_index.json"] * len(hub.served)  # nothing of its gigabytes


def test_a_path_that_is_not_there_is_not_looked_for_on_a_hub(hub: Hub) -> None:
    """`runs/model` reads like a hub's owner/name; where there is a folder runs/, it was meant as a path."""
    (Path.cwd() / "runs/first").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"no folder runs/model(.|\n)*holds first(.|\n)*runs/model@main"):
        recipe_for("runs/model")
    recipe = recipe_for("runs/model@main")
    assert recipe.hub == HubModel("runs/model", "main")


def test_a_shipped_model_by_its_hubs_name_has_its_recipes_defaults() -> None:
    recipe = recipe_for("shi-labs/versatile-diffusion")
    assert (recipe.name, recipe.family) == ("versatile-diffusion", "versatile-diffusion")
    assert recipe_for("shi-labs/versatile-diffusion@main").family == ""


def composed_recipe(hub: Hub, path: Path, adapter: str = "adapters/models/ip-adapter_small.safetensors") -> Recipe:
    """Of a model whose adapter and image encoder are at other places of the hub."""
    saved("ip-adapter", hub.folder)
    (hub.folder / "adapters/models").mkdir(parents=True)
    (hub.folder / "ip_adapter" / ADAPTER).rename(hub.folder / "adapters/models" / ADAPTER)
    (hub.folder / "ip_adapter").rmdir()
    (hub.folder / "image_encoder").rename(hub.folder / "adapters/vit")
    write(hub.folder, "image_encoder/config.json", "adapters/models/other.safetensors", "adapters/vit/model.bin")
    path.write_text(f"""
family = "ip-adapter"
[source]
hub = "a/model"
revision = "main"
[source.parts]
ip_adapter = "a/model@main:{adapter}"
image_encoder = "a/model@main:adapters/vit"
[defaults]
steps = 5
strength = 1
scheduler = ""
guidance = 1
batch = 4
""")
    return load_recipe(str(path))


def test_a_model_is_put_together_from_several_places(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "diffclean"))
    recipe = composed_recipe(hub, tmp_path / "mine.toml")
    place = located(recipe).directory
    assert place is not None
    family_named("ip-adapter").load(place)
    wanted = {"adapters/models/ip-adapter_small.safetensors", "adapters/vit/config.json"}
    assert wanted <= set(hub.served)
    assert not {"adapters/models/other.safetensors", "adapters/vit/model.bin", "image_encoder/config.json"} & set(
        hub.served
    )
    cut_off(monkeypatch)
    assert located(recipe).directory == place


def test_a_model_of_two_repositories_without_a_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline it needs both of them, and says which one is missing."""
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "diffclean"))
    hub.others["b/adapters"] = hub.folder.parent / "adapters"
    composed_recipe(hub, tmp_path / "mine.toml")
    (hub.folder / "adapters").rename(hub.others["b/adapters"])
    text = (tmp_path / "mine.toml").read_text().replace("a/model@main:adapters/", "b/adapters@main:")
    (tmp_path / "mine.toml").write_text(text)
    recipe = load_recipe(str(tmp_path / "mine.toml"))
    assert recipe.unpinned == ["a/model@main", "b/adapters@main"]
    address = huggingface_hub.constants.ENDPOINT
    cut_off(monkeypatch)
    with pytest.raises(DiffcleanError, match="a/model@main cannot be fetched"):
        located(recipe)
    use_hub(monkeypatch, address)
    place = located(recipe).directory
    assert place is not None
    cut_off(monkeypatch)
    assert located(recipe).directory == place
    family_named("ip-adapter").load(place)
    shutil.rmtree(tmp_path / "cache" / "models--b--adapters")
    with pytest.raises(DiffcleanError, match="b/adapters@main cannot be fetched"):
        located(recipe)


def test_a_part_that_is_not_there_any_more(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "diffclean"))
    recipe = composed_recipe(hub, tmp_path / "mine.toml", "adapters/gone.safetensors")
    with pytest.raises(DiffcleanError, match=r"a/model@main has no adapters/gone.safetensors"):
        located(recipe)


@pytest.mark.parametrize("place", ["a/model:unet", "a/model@main", "../../etc@main:passwd", "a/model@main:../up"])
def test_a_part_is_named_in_one_form_only(place: str, tmp_path: Path) -> None:
    text = f"""
family = "ip-adapter"
source = {{ hub = "a/model", revision = "main", parts = {{ image_encoder = "{place}" }} }}
defaults = {{ steps = 1, strength = 1, scheduler = "", guidance = 1, batch = 1 }}
"""
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match="owner/name@revision:path"):
        load_recipe(str(tmp_path / "mine.toml"))
