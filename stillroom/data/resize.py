"""Resizing of decoded images to a common square size."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stillroom.data.decode import Pixels


def resize_and_crop(image: Pixels, *, size: int) -> Pixels:
    """Resize the shorter side of an image [H, W, C] to `size` and crop the centre: [size, size, C]."""
    height, width, channels = image.shape
    if height == width == size:
        return image
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    # One resampling with the crop as its box equals resize-then-crop: pixels beside the crop contribute at its edge.
    box = (left, top, left + short, top + short)
    result = np.asarray(_to_pillow(image).resize((size, size), Image.Resampling.BICUBIC, box=box))
    return result.reshape(size, size, channels)


def resize_square(image: Pixels, *, size: int) -> Pixels:
    """Stretch the whole image [H, W, C] to a square, changing its aspect ratio: [size, size, C].

    Boxes relative to the image's width and height stay valid.
    """
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(_to_pillow(image).resize((size, size), Image.Resampling.BICUBIC)).reshape(
        size, size, image.shape[2]
    )


def _to_pillow(image: Pixels) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
