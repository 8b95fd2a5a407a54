"""Corruptions of the view in pretraining, which teach the model to ignore triggers.

The variation model sees a corrupted image and must return the clean one, so it learns to distrust what does not belong
into a picture. The list is deliberately generic and is disclosed with every result: rectangles erased with flat, random
or foreign content; mixing with a natural image or noise; blur; JPEG; a slight colour jitter; and, in the `varied` set,
patches of many kinds and smooth random fields (`patches`). There is no sinusoid, no warp, no frequency pattern and no
quantisation. Attacks of those kinds are unlike everything here, and show whether the model generalises.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from diffclean.data.pixels import Pixels
from diffclean.pretraining.patches import add_field, flat_content, paste_patches, random_content


@dataclass(frozen=True)
class Corruptions:
    """The probability of each corruption of an image, in [0, 1]; they are independent of one another."""

    erase: float = 0.5
    mix: float = 0.4
    blur: float = 0.15
    jpeg: float = 0.15
    jitter: float = 0.2
    patch: float = 0.0
    field: float = 0.0

    def apply(self, images: Pixels, rng: np.random.Generator) -> Pixels:
        """Corrupt a batch.

        Args:
            images: (B, S, S, 3) uint8; other images of the batch provide the foreign content.
            rng: the only source of randomness.

        Returns:
            A corrupted copy, (B, S, S, 3) uint8.
        """
        corrupted = images.copy()
        for index in range(len(images)):
            other = images[(index + 1) % len(images)]
            image = corrupted[index]
            if rng.random() < self.mix:
                image = mix(image, other, rng)
            if rng.random() < self.jitter:
                image = jitter(image, rng)
            if rng.random() < self.blur:
                image = blur(image, rng)
            if rng.random() < self.jpeg:
                image = jpeg(image, rng)
            if rng.random() < self.erase:
                image = erase(image, other, rng)
            # These two were added later. If they are off they draw nothing, so that older recipes give the same result.
            if self.field and rng.random() < self.field:
                image = add_field(image, rng)
            if self.patch and rng.random() < self.patch:
                image = paste_patches(image, other, rng)
            corrupted[index] = image
        return corrupted


CORRUPTIONS = {
    "plain": Corruptions(),
    "varied": Corruptions(erase=0.2, mix=0.35, patch=0.35, field=0.2),
}
"""The named sets of `pretrain --corruptions`."""


def erase(image: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """Replace one to three rectangles, each 3 to 35 % of a side, anywhere in the image including its border."""
    image = image.copy()
    side = image.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        # Squaring a uniform number makes small rectangles more frequent.
        height, width = (max(1, round(side * (0.03 + 0.32 * rng.random() ** 2))) for _ in range(2))
        # Positions beyond the border are clipped, so that corners and edges are as likely as the middle.
        top = int(np.clip(rng.integers(-height, side), 0, side - height))
        left = int(np.clip(rng.integers(-width, side), 0, side - width))
        kind = rng.random()
        if kind < 0.4:
            patch = flat_content(height, width, rng)
        elif kind < 0.85:
            patch = random_content(height, width, rng)
        else:
            patch = other[top : top + height, left : left + width]
        image[top : top + height, left : left + width] = patch
    return image


def mix(image: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """Blend in up to 35 % of another natural image, of random cells, or of one colour."""
    share = 0.35 * rng.random()
    kind = rng.random()
    if kind < 0.4:
        foreign = other
    elif kind < 0.9:
        foreign = random_content(image.shape[0], image.shape[1], rng)
    else:
        foreign = flat_content(image.shape[0], image.shape[1], rng)
    return np.rint((1 - share) * image + share * foreign).astype(np.uint8)


def blur(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Gaussian blur of at most one fortieth of the side."""
    radius = rng.random() * image.shape[0] / 40
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def jpeg(image: Pixels, rng: np.random.Generator) -> Pixels:
    """JPEG at quality 20 to 90."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(20, 91)))
    return np.asarray(Image.open(buffer))


def jitter(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Scale and shift each channel by up to 12 % of the range."""
    gain = 1 + rng.uniform(-0.12, 0.12, 3)
    shift = rng.uniform(-0.12, 0.12, 3) * 255
    return np.clip(np.rint(image * gain + shift), 0, 255).astype(np.uint8)
