"""`diffclean.Varier`: variations of images in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffclean.api.common import AnyPath, following
from diffclean.api.variate import settings_of
from diffclean.errors import UsageError
from diffclean.families.seeds import image_seed
from diffclean.progress import Progress
from diffclean.variation import defaults

if TYPE_CHECKING:
    from diffclean.data.pixels import Pixels
    from diffclean.variation.settings import Settings

Images = TypeVar("Images")
Pack = Callable[[list[NDArray[np.uint8]]], Any]
_WANTED = "a PIL image, a numpy array (H, W, 3) uint8, a list of these, or a torch tensor (B, 3, H, W) uint8 or float"


class Varier:
    """Makes variations of images in memory, with an engine that is opened once.

    A variation has the same bytes as the one that `variate` writes for a lossless file of the same pixels with the same
    seed and settings. (If a JPEG is much larger than the model's square, `variate` decodes a smaller version, which
    differs slightly.)

    Args:
        engine: as for `variate`, like `runtime`, `precision`, `steps`, `strength`, `guidance`, `guidance_interval`,
            `scheduler`, `batch`, `size`, `fit`, `color_transfer` and `threads`.
        progress: whether a bar is drawn while an engine is prepared for its first use, or a `Progress` to report to.

    Raises:
        UsageError: a setting is out of range.
        DiffcleanError: there is no such engine, or nothing on this machine can run it.
    """

    def __init__(
        self,
        engine: AnyPath = defaults.ENGINE,
        *,
        runtime: str = defaults.RUNTIME,
        precision: str | None = None,
        steps: int | None = None,
        strength: float | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, float] = defaults.GUIDANCE_INTERVAL,
        scheduler: str | None = None,
        batch: int | None = None,
        size: str | int = defaults.SIZE,
        fit: str = defaults.FIT,
        color_transfer: str = defaults.COLOR_TRANSFER,
        threads: int | None = None,
        progress: bool | Progress = True,
    ) -> None:
        from diffclean.variation.settings import open_for

        settings = settings_of(
            engine=str(engine),
            runtime=runtime,
            precision=precision,
            steps=steps,
            strength=strength,
            guidance=guidance,
            guidance_interval=guidance_interval,
            scheduler=scheduler,
            batch=batch,
            size=size,
            fit=fit,
            format=defaults.FORMAT,
            color_transfer=color_transfer,
        )
        with following(progress) as shown:
            self._opened = open_for(settings, threads, shown)

    @property
    def settings(self) -> Settings:
        """The settings, with those of the engine where none were given."""
        return self._opened.settings

    def __call__(self, images: Images, seeds: int | Sequence[int] | None = None) -> Images:
        """Make a variation of each image.

        Args:
            images: one PIL image, one numpy array (H, W, 3) uint8, or a list of these, of any sizes; a numpy array (B,
                H, W, 3) uint8; or a torch tensor (B, 3, H, W), uint8 or float in [0, 1].
            seeds: one seed for each image, like those in the column `seed` of a manifest, or one number for a single
                image. With None they are derived from the pixels, so that an image always gets the same variation.

        Returns:
            The variations in the form of `images`: the same types, shapes (with `size="source"`) and, for torch, dtype
                and device.

        Raises:
            UsageError: `images` is something else, or the number of seeds differs.
            DiffcleanError: an image cannot be regenerated.
        """
        from diffclean.variation.in_memory import vary

        pictures, pack = _unpacked(images)
        numbers = [_own_seed(picture) for picture in pictures] if seeds is None else _listed(seeds)
        if len(numbers) != len(pictures):
            raise UsageError(
                f"There are {len(pictures)} images and {len(numbers)} seeds.", "Give one seed for each image."
            )
        packed: Images = pack(vary(pictures, numbers, self._opened) if pictures else [])
        return packed


def _listed(seeds: int | Sequence[int]) -> list[int]:
    numbers = [int(seed) for seed in ([seeds] if isinstance(seeds, int) else seeds)]
    if wrong := [number for number in numbers if not 0 <= number < 2**64]:
        raise UsageError(f"A seed must be in 0 to 2^64 - 1, not {wrong[0]}.")
    return numbers


def _own_seed(picture: Pixels) -> int:
    return image_seed(0, hashlib.sha256(picture.tobytes()).hexdigest(), 0)


def _unpacked(images: Any) -> tuple[list[NDArray[np.uint8]], Pack]:
    """The images as (H, W, 3) uint8 each, and a function that returns images in their original form."""
    if type(images).__module__.partition(".")[0] == "torch":
        return _from_torch(images)
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return [_checked(image) for image in images], np.stack
    if isinstance(images, list | tuple):
        each = [_unpacked_one(image) for image in images]
        packs = [pack for _, pack in each]
        return [picture for picture, _ in each], lambda made: type(images)(
            pack(picture) for pack, picture in zip(packs, made, strict=True)
        )
    picture, pack = _unpacked_one(images)
    return [picture], lambda made: pack(made[0])


def _unpacked_one(image: Any) -> tuple[NDArray[np.uint8], Callable[[NDArray[np.uint8]], Any]]:
    from PIL import Image

    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"), np.uint8), Image.fromarray
    return _checked(image), lambda made: made


def _checked(image: Any) -> NDArray[np.uint8]:
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return np.ascontiguousarray(image)
    raise UsageError(f"Expected {_WANTED}; found {_described(image)}.")


def _described(image: Any) -> str:
    shape = f" of shape {tuple(image.shape)} and {image.dtype}" if hasattr(image, "dtype") else ""
    return f"{type(image).__name__}{shape}"


def _from_torch(images: Any) -> tuple[list[NDArray[np.uint8]], Pack]:
    import torch

    if images.ndim != 4 or images.shape[1] != 3 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise UsageError(f"Expected {_WANTED}; found {_described(images)}.")
    dtype, device = images.dtype, images.device
    levels = images.detach().cpu()
    if dtype != torch.uint8:
        if not bool(((levels >= 0) & (levels <= 1)).all()):
            raise UsageError("Expected floats in [0, 1]; found others.", "Undo the normalisation first.")
        levels = (levels.float() * 255).round().to(torch.uint8)

    def pack(made: list[NDArray[np.uint8]]) -> Any:
        if not made:
            return images
        stacked = torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()
        return (stacked if dtype == torch.uint8 else stacked.to(dtype) / 255).to(device)

    return [np.ascontiguousarray(picture) for picture in levels.permute(0, 2, 3, 1).numpy()], pack
