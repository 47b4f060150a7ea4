"""Images of a run folder as data URIs, decoded and encoded again so that nothing but pixels enters the page."""

from __future__ import annotations

import base64
import colorsys
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stillroom.report.run_files import file_inside

MAX_SIDE = 160  # pixels: enough for a thumbnail on a dense screen, and keeps the file small
VOID = 255  # in a mask: no class


@dataclass(frozen=True)
class EmbeddedImage:
    """An image as a data URI."""

    source: str
    width: int
    height: int


def embed_image(samples: Path, name: str, *, max_side: int = MAX_SIDE, exact: bool = True) -> EmbeddedImage | None:
    """The image `name` of the folder `samples`; None if it can't be read.

    Args:
        samples: the folder.
        name: of a file in it.
        max_side: pixels; larger images are made smaller.
        exact: every pixel unchanged. Otherwise JPEG, which takes a fifth of the bytes for a photo.
    """
    image = _open(samples, name)
    if image is None:
        return None
    pixels = image.convert("L" if image.mode in ("L", "1") else "RGB")
    pixels.thumbnail((max_side, max_side))
    return EmbeddedImage(_uri(pixels, "PNG" if exact else "JPEG"), *pixels.size)


def embed_mask(samples: Path, name: str, *, max_side: int) -> tuple[EmbeddedImage, dict[int, int]] | None:
    """An image of class indices in the colours of the classes, half transparent, and the pixels of each class."""
    image = _open(samples, name)
    if image is None:
        return None
    labels = image.convert("L") if image.mode not in ("L", "P") else image.copy()
    labels.thumbnail((max_side, max_side), Image.Resampling.NEAREST)
    counts = {label: count for label, count in enumerate(labels.histogram()[:VOID]) if count}
    painted = Image.frombytes("P", labels.size, labels.tobytes())
    painted.putpalette(b"".join(bytes(rgb(label)) for label in range(256)))
    alpha = bytes([150] * VOID + [0])
    return EmbeddedImage(_uri(painted, "PNG", transparency=alpha), *painted.size), counts


def rgb(label: int) -> tuple[int, int, int]:
    """The colour of a class, the same on every page: hues a golden angle apart, so that adjacent labels differ most."""
    red, green, blue = colorsys.hls_to_rgb((0.06 + 0.381966 * label) % 1.0, (0.55, 0.68, 0.45)[label // 8 % 3], 0.82)
    return round(255 * red), round(255 * green), round(255 * blue)


def css_colour(label: int) -> str:
    """The colour of a class in CSS: "#e86b31"."""
    return "#{:02x}{:02x}{:02x}".format(*rgb(label))


def _open(samples: Path, name: str) -> Image.Image | None:
    file = file_inside(samples, name)
    if file is None:
        return None
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _uri(pixels: Image.Image, format: str, transparency: bytes | None = None) -> str:
    stream = io.BytesIO()
    extra = {"quality": 86} if format == "JPEG" else {} if transparency is None else {"transparency": transparency}
    pixels.save(stream, format, optimize=True, **extra)
    return f"data:image/{format.lower()};base64," + base64.b64encode(stream.getvalue()).decode()
