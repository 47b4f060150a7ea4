"""Decoding of mask files: the stored integers are classes, so palettes are not applied and lossy formats refused."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stillroom.data.decode import MAX_PIXELS, Pixels, apply_orientation, open_image, read_header
from stillroom.data.errors import InvalidMask, UnreadableImage


def decode_mask(raw: bytes | Pixels, *, max_pixels: int = MAX_PIXELS, name: str = "mask") -> Pixels:
    """A mask [H, W] uint8 of stored integers; for palette images these are the palette indices.

    Raises:
        InvalidMask: SR-D122 colours instead of integers, or more than 8 bits; other errors as `decode`.
    """
    if isinstance(raw, np.ndarray):
        read_header(raw, max_pixels=max_pixels, name=name)
        if raw.ndim != 2 or raw.dtype != np.uint8:
            raise InvalidMask(path=name, why=f"expected uint8 [H, W], got {raw.dtype} {raw.shape}")
        return raw
    image = open_image(raw, max_pixels=max_pixels, name=name)
    if image.mode not in ("1", "L", "P"):
        why = f"its pixels are of mode {image.mode}; a mask needs one 8-bit integer per pixel (mode L or P)"
        raise InvalidMask(path=name, why=why)
    if image.format == "JPEG":
        why = "JPEG is lossy: a value that is off by one is another class"
        raise InvalidMask(path=name, why=why)
    try:
        scale = _grey_scale(image)
        image.load()
        return np.asarray(apply_orientation(image)).astype(np.uint8) // np.uint8(scale)
    except MemoryError:
        raise
    except Exception as problem:  # as in `decode`
        raise UnreadableImage(path=name, why=f"Pillow: {problem}") from problem


def _grey_scale(image: Image.Image) -> int:
    """The factor by which Pillow multiplies 2-bit and 4-bit grey values so that the largest becomes 255."""
    tiles = getattr(image, "tile", None)  # how the file stores its pixels
    layout = tiles[0][3] if tiles else ""
    raw = layout[0] if isinstance(layout, tuple) else layout
    return {"L;2": 85, "L;4": 17}.get(str(raw), 1)
