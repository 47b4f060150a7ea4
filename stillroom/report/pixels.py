"""Pictures of a run folder as data URIs: decoded and written again, so that nothing but pixels comes along."""

from __future__ import annotations

import base64
import colorsys
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stillroom.report.folder import inside

SIDE = 160  # pixels: enough for a thumbnail on a dense screen, and keeps the file small
VOID = 255  # in a mask: nobody says


@dataclass(frozen=True)
class Pixels:
    """A picture ready to show."""

    source: str
    width: int
    height: int


def picture(samples: Path, name: str, *, most: int = SIDE, exact: bool = True) -> Pixels | None:
    """The picture `name` of the folder `samples`, at most `most` pixels a side; None where it can't be read.

    Args:
        samples: the folder.
        name: of a file in it.
        most: pixels a side; larger ones are made smaller.
        exact: every pixel as it is. A photo is otherwise written as JPEG, which takes a fifth of the bytes.
    """
    found = _open(samples, name)
    if found is None:
        return None
    pixels = found.convert("L" if found.mode in ("L", "1") else "RGB")
    pixels.thumbnail((most, most))
    return Pixels(_uri(pixels, "PNG" if exact else "JPEG"), *pixels.size)


def mask(samples: Path, name: str, *, most: int) -> tuple[Pixels, dict[int, int]] | None:
    """A picture of class indices in the classes' colours, half transparent, and how many pixels each class has."""
    found = _open(samples, name)
    if found is None:
        return None
    places = found.convert("L") if found.mode not in ("L", "P") else found.copy()
    places.thumbnail((most, most), Image.Resampling.NEAREST)
    counts = {label: count for label, count in enumerate(places.histogram()[:VOID]) if count}
    painted = Image.frombytes("P", places.size, places.tobytes())
    painted.putpalette(b"".join(bytes(rgb(label)) for label in range(256)))
    alpha = bytes([150] * VOID + [0])
    return Pixels(_uri(painted, "PNG", transparency=alpha), *painted.size), counts


def rgb(label: int) -> tuple[int, int, int]:
    """A class's colour, the same on every page: hues a golden angle apart, so that neighbours differ most."""
    red, green, blue = colorsys.hls_to_rgb((0.06 + 0.381966 * label) % 1.0, (0.55, 0.68, 0.45)[label // 8 % 3], 0.82)
    return round(255 * red), round(255 * green), round(255 * blue)


def colour(label: int) -> str:
    """The same as CSS writes it: "#e86b31"."""
    return "#{:02x}{:02x}{:02x}".format(*rgb(label))


def _open(samples: Path, name: str) -> Image.Image | None:
    file = inside(samples, name)
    if file is None:
        return None
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _uri(pixels: Image.Image, form: str, transparency: bytes | None = None) -> str:
    stream = io.BytesIO()
    extra = {"quality": 86} if form == "JPEG" else {} if transparency is None else {"transparency": transparency}
    pixels.save(stream, form, optimize=True, **extra)
    return f"data:image/{form.lower()};base64," + base64.b64encode(stream.getvalue()).decode()
