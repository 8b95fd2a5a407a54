"""Pretraining of a variation model of the family `micro` on trusted images.

The network denoises clean images while it is given a view of a *corrupted* copy (see `corruptions`), so it learns a
condition that ignores triggers. The batch, the noise and the corruptions of every step are derived from (seed, step)
alone, so a run that was killed and resumed ends like an undisturbed one. If the length is given in minutes, see
`Length`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffclean.data.atomic import sync_file
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.families.bounds import check_archive
from diffclean.families.micro_model import MicroUNet
from diffclean.families.micro_view import encoder_of, view_told
from diffclean.pretraining.batches import (
    TRAIN_TIMESTEPS,
    Draws,
    Example,
    default_workers,
    draws_from,
    prepared,
)
from diffclean.pretraining.config import Length, PretrainConfig, learning_rate_at
from diffclean.pretraining.corruptions import Corruptions
from diffclean.progress import NoProgress, Progress
from diffclean.training.muon import MuonAndAdamW, MuonSettings, set_rate

log = logging.getLogger(__name__)

_VALIDATION_IMAGES = 64
_SIGMA2_FLOOR = 0.5
"""The loss weight is 1 / max(sigma^2, floor). This is the weighting of velocity prediction, but limited where the input
already shows the answer, since the model is used with few steps from pure noise, at the noisy end."""


@dataclass(frozen=True)
class PretrainResult:
    """The result of a finished run."""

    model_dir: Path
    steps: int
    images_per_second: float
    validation_loss: float


class Pretrainer:
    """The state of a run: weights in fp32, a bf16 copy that computes, the optimiser and the moving average."""

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        from diffusers import DDIMScheduler

        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        shape = {key: getattr(config, key) for key in ("channels", "blocks", "layers", "heads")}
        self.master = MicroUNet(sample_size=config.size, **shape, view=2 if config.coarse_views else 1).to(device)
        self.ema = copy.deepcopy(self.master).requires_grad_(False)
        # A bf16 copy computes, in place of autocast: there are no casts in each layer, and norms stay in bf16.
        self.compute = copy.deepcopy(self.master).bfloat16().to(memory_format=torch.channels_last)
        if device.type == "cuda":
            self.forward: nn.Module = torch.compile(self.compute)  # type: ignore[assignment]
        else:
            self.forward = self.compute
        self.optimizer = MuonAndAdamW(self.master, MuonSettings(config.learning_rate, config.weight_decay))
        self.scheduler = DDIMScheduler(**scheduler_config())
        self.alphas_cumprod = self.scheduler.alphas_cumprod.to(device)
        self.view_encoder = encoder_of(self.master)
        self.data = ""
        self.step = 0
        self.length = Length(config)

    def loss(self, model: nn.Module, clean: Tensor, corrupted: Tensor, draws: Draws) -> Tensor:
        """The weighted squared error of the predicted clean image, a scalar; images are (B, S, S, 3) uint8."""
        given = (clean, corrupted, draws.timestep, draws.view_level, draws.view_noise, draws.noise)
        moved = [x.to(self.device, non_blocking=True) for x in given]
        clean, corrupted, timestep, view_level, view_noise, noise = moved
        target = clean.permute(0, 3, 1, 2).float() / 127.5 - 1
        alpha2 = self.alphas_cumprod[timestep][:, None, None, None]
        noised = alpha2.sqrt() * target + (1 - alpha2).sqrt() * noise
        condition = view_told(self.view_encoder, corrupted, view_noise, view_level, draws.cell)
        view = condition.pop("view")
        dtype = next(model.parameters()).dtype
        noised, view = (x.to(dtype, memory_format=torch.channels_last) for x in (noised, view))
        predicted = model(noised, timestep.float(), view, **condition).float()
        weight = 1 / (1 - alpha2).clamp_min(_SIGMA2_FLOOR)
        return (weight * (predicted - target) ** 2).mean()

    def train_step(self, example: Example) -> float:
        """Do one optimiser step and return its loss."""
        loss = self.loss(self.forward, example.clean, example.corrupted, example.draws)
        loss.backward()
        masters, halves = list(self.master.parameters()), list(self.compute.parameters())
        for master, half in zip(masters, halves, strict=True):
            master.grad = None if half.grad is None else half.grad.float()
            half.grad = None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        set_rate(self.optimizer, learning_rate_at(self.step, self.config, self.length.steps))
        self.optimizer.step()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), masters, 1 - decay)
            torch._foreach_copy_(halves, masters)
        self.step += 1
        return float(loss.detach())  # this waits for the GPU, so it comes last

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as tensors and plain values."""
        return {
            "config": asdict(self.config),
            "step": self.step,
            "data": self.data,
            "length": self.length.state(),
            "master": self.master.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved state."""
        self.master.load_state_dict(state["master"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for master, half in zip(self.master.parameters(), self.compute.parameters(), strict=True):
                half.copy_(master)
        self.step = state["step"]
        if "length" in state:
            self.length.restore(state["length"])


def scheduler_config() -> dict[str, Any]:
    """The noise schedule of the family, in the form of diffusers' schedulers: cosine, with clean-image prediction."""
    return {
        "num_train_timesteps": TRAIN_TIMESTEPS,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
        "clip_sample": False,  # the sampler takes linear steps only; the decoder clips
    }


def save_model(model: MicroUNet, directory: Path) -> None:
    """Write `model` in diffusers' directory layout: half-precision safetensors and the scheduler's configuration."""
    from diffusers import DDIMScheduler

    half = copy.deepcopy(model).half()
    half.save_pretrained(directory / "unet", safe_serialization=True)
    DDIMScheduler(**scheduler_config()).save_pretrained(directory / "scheduler")
    index = {
        "_class_name": "MicroPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffclean.families.micro_model", "MicroUNet"],
    }
    (directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def pretrain(
    images: NDArray[np.uint8],
    out: Path,
    config: PretrainConfig,
    progress: Progress | None = None,
    stop: Event | None = None,
    workers: int | None = None,
) -> PretrainResult:
    """Train a variation model and write it to `out/model`.

    Args:
        images: (N, S, S, 3) uint8, trusted; the last 64 are held out for validation.
        out: the run folder: `config.json`, `log.jsonl`, `loss.png`, `samples-<step>.png`, `checkpoint.pt`, `model/`.
        config: the configuration, see `PretrainConfig`.
        progress: is advanced for every step.
        stop: when set, the run saves a checkpoint after the current step.
        workers: the number of processes that prepare batches; 0 stands for a thread, None for as many as the device
            needs. It does not change the batches.

    Raises:
        DiffcleanError: there are too few images, `out` holds another configuration, or the loss is NaN or infinite.
        Interrupted: `stop` was set; the same call resumes.
    """
    from diffclean.pretraining.report import draw_grid, draw_loss

    progress = progress or NoProgress()
    if len(images) < 2 * _VALIDATION_IMAGES:
        raise DiffcleanError(
            f"{len(images)} images are too few to pretrain on.", "Give at least 128; thousands are useful."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Pretrainer(config, device)
    trainer.data = _digest(images)
    resume(trainer, out)
    write_config(config, out)
    held_out = torch.from_numpy(np.array(images[-_VALIDATION_IMAGES:]))
    on_gpu = device.type == "cuda"
    workers = default_workers(device) if workers is None else workers
    source = prepared(images[:-_VALIDATION_IMAGES], config, trainer.step, workers, pin=on_gpu)
    length = trainer.length
    total = None if length.steps is None else length.steps * config.batch
    progress.begin("pretrain", total, done=trainer.step * config.batch)
    started, first_step, validation = time.monotonic(), trainer.step, float("nan")
    average = None
    while not length.over(trainer.step):
        began = time.monotonic()
        loss = trainer.train_step(next(source))
        if length.spend(trainer.step, time.monotonic() - began):
            assert length.steps is not None
            log.info("The run will have %d steps in the given time; the learning rate falls from now on.", length.steps)
        _check_finite("loss", loss, trainer.step)
        average = loss if average is None else 0.98 * average + 0.02 * loss
        progress.advance(config.batch, loss=average)
        stopping = stop is not None and stop.is_set()
        if trainer.step % config.validate_every == 0 or length.over(trainer.step) or stopping:
            validation = validate(trainer, held_out)
            _check_finite("validation loss", validation, trainer.step)
            entry = {
                "step": trainer.step,
                "loss": average,
                "validation_loss": validation,
                "seconds": round(time.monotonic() - started, 1),
            }
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(entry) + "\n")
            save_checkpoint(trainer, out)
            if not stopping:
                draw_grid(trainer.ema, trainer.scheduler, held_out[:8], config, out / f"samples-{trainer.step:06d}.png")
                draw_loss(out)
        if stopping:
            progress.end()
            where = f"step {trainer.step}" + ("" if length.steps is None else f" of {length.steps}")
            raise Interrupted(f"Stopped at {where}; the same command continues.")
    progress.end()
    if np.isnan(validation):  # nothing was left to do
        validation = validate(trainer, held_out)
    # With the length in images, the same run can be made again.
    write_config(replace(config, images=trainer.step * config.batch) if config.minutes is not None else config, out)
    save_model(trainer.ema, out / "model")
    seconds = max(time.monotonic() - started, 1e-9)
    return PretrainResult(out / "model", trainer.step, (trainer.step - first_step) * config.batch / seconds, validation)


def write_config(config: PretrainConfig, out: Path) -> None:
    """Write `out/config.json`."""
    (out / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")


def _digest(images: NDArray[np.uint8]) -> str:
    """A text that differs between runs that see different images, from a sample of possibly many gigabytes."""
    sample = np.ascontiguousarray(images[:: max(1, len(images) // 256)])
    return f"{len(images)} images, {hashlib.sha256(sample.tobytes()).hexdigest()[:12]}"


def _check_finite(what: str, value: float, step: int) -> None:
    """Stop before anything is saved, since a step with a finite loss may still have ruined the weights."""
    if not np.isfinite(value):
        raise DiffcleanError(
            f"The {what} became {value} at step {step}.",
            "The last checkpoint was good. Give another `out` and a lower `learning_rate`.",
        )


@torch.no_grad()
def validate(trainer: Pretrainer, held_out: Tensor) -> float:
    """The loss of the averaged weights on held-out images with fixed noise, which can be compared from step to step."""
    rng = np.random.default_rng(0)
    corrupted = torch.from_numpy(Corruptions().apply(held_out.numpy(), rng))
    draws = draws_from(trainer.config, len(held_out), torch.Generator().manual_seed(0))
    return float(trainer.loss(trainer.ema, held_out, corrupted, draws))


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint, with the current defaults for settings that did not exist when it was written."""
    defaults = asdict(PretrainConfig())
    corruptions = {**defaults["corruptions"], **config["corruptions"]}
    return {**defaults, **config, "corruptions": corruptions}


def save_checkpoint(trainer: Pretrainer, out: Path) -> None:
    """Replace `checkpoint.pt` in one move, so that a kill leaves either the old one or the new one."""
    temporary = out / "checkpoint.pt.part"
    try:
        with temporary.open("wb") as file:  # with a file opened by Python, a full disk raises an OSError
            torch.save(trainer.state(), file)
            file.flush()
            sync_file(file.fileno())
        temporary.replace(out / "checkpoint.pt")
    finally:
        temporary.unlink(missing_ok=True)


def resume(trainer: Pretrainer, out: Path) -> None:
    """Restore the checkpoint in `out`, if there is one.

    Raises:
        DiffcleanError: it is damaged, or has another configuration. Only the images or minutes may change, since the
            rate is held until the end.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "checkpoint.pt"
    if not path.exists():
        return
    try:
        check_archive(path)
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        now, then = asdict(trainer.config), _completed(state["config"])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # damaged bytes can raise any kind of exception
        raise _damaged(path) from error
    free = {"images", "minutes", "validate_every", "decay_share"}
    changed = [
        f"{key}: {then.get(key)} there, {now[key]} asked"
        for key in now
        if key not in free and then.get(key) != now[key]
    ]
    if changed:
        raise DiffcleanError(
            f"{out} holds a run with another configuration: " + "; ".join(changed) + ".",
            "Use the same settings to resume it, or another `out`.",
        )
    if state.get("data", trainer.data) != trainer.data:
        log.warning("The run in %s was started with other images (%s); it continues with these.", out, state["data"])
    try:
        trainer.restore(state)
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    log.info("Resuming at step %d.", trainer.step)


def _damaged(path: Path) -> DiffcleanError:
    return DiffcleanError(
        f"{path} is damaged or is not a checkpoint of `pretrain`.",
        "Remove it to start from the beginning, or name another `out`.",
    )
