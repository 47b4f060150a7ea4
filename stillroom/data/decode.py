"""The decode rule: how a file becomes pixels. There is one, for teacher, student, cache, report and exported file.

1.  The kind is told by the content, never by the name: JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF.
2.  The size in the header is checked before a pixel is decoded: at most `max_pixels`, two pixels a side at least.
3.  Of an animation or of several pages, the first is the image.
4.  The EXIF orientation is applied.
5.  Of 16 bits a channel the high byte counts: scaled to 8 bits, not clipped. 32-bit and float pixels have no agreed
    range and are refused.
6.  What is transparent lies on white: (value · alpha + 255 · (255 - alpha)) / 255, rounded.
7.  CMYK, palettes and every other colour space become RGB by Pillow's own conversion, colour profiles ignored;
    channels = 1 takes the ITU-R 601 luminance of that, channels = 3 repeats a grey image three times.
8.  `fit`: the shorter side becomes `size` (antialiased bicubic), the centre is kept. An image that has the size
    already is not touched. Where places in the image matter (boxes, masks) it is `stretch` instead: all of it, square.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stillroom.data.errors import ImageTooSmall, InvalidMask, NotAnImage, TooManyPixels, UnreadableImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
NAMES = "jpg jpeg jpe jfif png apng webp gif bmp dib tif tiff ppm pgm pbm pnm avif"
SUFFIXES = frozenset(f".{name}" for name in NAMES.split())
MAX_PIXELS = 89_000_000
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Pixels = NDArray[np.uint8]


def decode(blob: bytes, *, channels: int, max_pixels: int = MAX_PIXELS, name: str = "image") -> Pixels:
    """The pixels [H, W, C] uint8 of an encoded image, by the rule at the top of this file.

    Args:
        blob: the whole file.
        channels: C, 1 (grey) or 3 (RGB).
        max_pixels: the largest H · W that is decoded.
        name: what to call the image in an error.

    Raises:
        StillroomError: SR-D102 damaged, SR-D103 not an image, SR-D105 too large, SR-D106 too small.
    """
    image = _open(blob, max_pixels=max_pixels, name=name)
    try:
        image.load()
        return _as_channels(_upright(image), channels)
    except MemoryError:
        raise  # the machine's fault, not the file's
    except Exception as problem:  # Pillow's decoders raise whatever they like on hostile bytes
        raise UnreadableImage(path=name, why=f"Pillow: {problem}") from problem


def read_header(raw: bytes | Pixels, *, max_pixels: int = MAX_PIXELS, name: str = "image") -> tuple[int, int, int]:
    """Height, width and channels (1 grey, 3 colour) of an encoded image or of pixels, without decoding anything.

    Height and width are as stored: an EXIF turn may still exchange them.

    Raises:
        StillroomError: as `decode`, but for damage behind the header.
    """
    if isinstance(raw, np.ndarray):
        height, width = raw.shape[:2]
        _check_size(width, height, max_pixels, name)
        return height, width, 1 if raw.ndim == 2 else raw.shape[2]
    image = _open(raw, max_pixels=max_pixels, name=name)
    return image.height, image.width, 1 if image.mode in ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L") else 3


def oriented_size(raw: bytes | Pixels, *, max_pixels: int = MAX_PIXELS, name: str = "image") -> tuple[int, int]:
    """Height and width that the decoded image will have, an EXIF turn taken into account; decodes nothing.

    Raises:
        StillroomError: as `header`.
    """
    if isinstance(raw, np.ndarray):
        return read_header(raw, max_pixels=max_pixels, name=name)[:2]
    image = _open(raw, max_pixels=max_pixels, name=name)
    try:
        on_its_side = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # as in `_upright`
        on_its_side = False
    return (image.width, image.height) if on_its_side else (image.height, image.width)


def to_pixels(raw: bytes | Pixels, *, channels: int, max_pixels: int = MAX_PIXELS, name: str = "image") -> Pixels:
    """What a source's `read` gave, as [H, W, C] uint8: decoded if it is a file.

    Raises:
        StillroomError: as `decode`.
    """
    if isinstance(raw, bytes):
        return decode(raw, channels=channels, max_pixels=max_pixels, name=name)
    read_header(raw, max_pixels=max_pixels, name=name)
    if raw.dtype != np.uint8 or raw.ndim not in (2, 3) or (raw.ndim == 3 and raw.shape[2] not in (1, 3)):
        raise UnreadableImage(path=name, why=f"expected uint8 [H, W] or [H, W, 1|3], got {raw.dtype} {raw.shape}")
    planes = raw[:, :, None] if raw.ndim == 2 else raw
    if planes.shape[2] == channels:
        return planes
    return _as_channels(Image.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else planes), channels)


def resize_and_crop(image: Pixels, *, size: int) -> Pixels:
    """The image [H, W, C] with its shorter side brought to `size` and its centre kept: [size, size, C]."""
    height, width, channels = image.shape
    if height == width == size:
        return image
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    # one resampling with the crop as its box: pixels beside the box still count at its rim, as in resize-then-crop
    box = (left, top, left + short, top + short)
    result = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return result.reshape(size, size, channels)


def resize_square(image: Pixels, *, size: int) -> Pixels:
    """The whole image [H, W, C] as a square, its aspect given up: [size, size, C].

    A share of its width or height stays the same share, so boxes in shares need no change.
    """
    channels = image.shape[2]
    if image.shape[:2] == (size, size):
        return image
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)).reshape(size, size, channels)


def decode_mask(raw: bytes | Pixels, *, max_pixels: int = MAX_PIXELS, name: str = "mask") -> Pixels:
    """A mask [H, W] uint8, the stored numbers themselves: a palette's colours mean nothing here.

    Raises:
        InvalidMask: SR-D122 colours instead of numbers, or more than 8 bits; else as `decode`.
    """
    if isinstance(raw, np.ndarray):
        read_header(raw, max_pixels=max_pixels, name=name)
        if raw.ndim != 2 or raw.dtype != np.uint8:
            raise InvalidMask(path=name, why=f"expected uint8 [H, W], got {raw.dtype} {raw.shape}")
        return raw
    image = _open(raw, max_pixels=max_pixels, name=name)
    if image.mode not in ("1", "L", "P"):
        why = f"its pixels are of mode {image.mode}; needed is one number of 8 bits a pixel (mode L or P)"
        raise InvalidMask(path=name, why=why)
    if image.format == "JPEG":
        why = "JPEG changes numbers a little, and a class changed a little is another class"
        raise InvalidMask(path=name, why=why)
    try:
        step = _step_of_grey(image)
        image.load()
        return np.asarray(_upright(image)).astype(np.uint8) // np.uint8(step)
    except MemoryError:
        raise
    except Exception as problem:  # as in `decode`
        raise UnreadableImage(path=name, why=f"Pillow: {problem}") from problem


def _step_of_grey(image: Image.Image) -> int:
    """By how much Pillow multiplies the numbers of a grey image of 2 or 4 bits, so that its largest becomes 255."""
    tiles = getattr(image, "tile", None)  # where and how the file holds its pixels
    layout = tiles[0][3] if tiles else ""
    raw = layout[0] if isinstance(layout, tuple) else layout
    return {"L;2": 85, "L;4": 17}.get(str(raw), 1)


def _open(blob: bytes, *, max_pixels: int, name: str) -> Image.Image:
    """The opened, not yet decoded image.

    Not `Image.open`: that stops at a limit of Pillow's own, without saying width and height, and can only be told
    otherwise for the whole process. The registered openers read the header and nothing else.
    """
    Image.init()
    reasons = []
    for kind in FORMATS:
        opener, accepts = Image.OPEN.get(kind, (None, None))
        try:
            if opener is None or (accepts and accepts(blob[:16]) is not True):
                continue
            image = opener(BytesIO(blob), "")
        except Exception as problem:  # as `Image.open`, which tries the next kind
            if kind != "PPM":  # its signature is the letter P: a text may well begin with it
                reasons.append(f"{kind}: {problem}")
            continue
        _check_size(image.width, image.height, max_pixels, name)
        return image
    if reasons:
        raise UnreadableImage(path=name, why="; ".join(reasons))
    why = f"it starts with {blob[:12]!r}" if blob else "the file is empty"
    raise NotAnImage(path=name, bytes=len(blob), why=why)


def _check_size(width: int, height: int, limit: int, name: str) -> None:
    if width * height > limit:
        raise TooManyPixels(path=name, width=width, height=height, limit=limit)
    if min(width, height) < 2:
        raise ImageTooSmall(path=name, width=width, height=height)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels
        return image
    return image if turn is None else image.transpose(turn)


def _as_channels(image: Image.Image, channels: int) -> Pixels:
    wanted = "L" if channels == 1 else "RGB"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _high_byte(image)
    elif image.has_transparency_data:
        image = _on_white(image)
    if image.mode != wanted:
        # two steps for CMYK and its kin: Pillow knows no direct way to grey for all of them
        image = image if image.mode in ("1", "L", "RGB") else image.convert("RGB")
        image = image if image.mode == wanted else image.convert(wanted)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _high_byte(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(f"{image.mode!r} pixels from {values.min()} to {values.max()} have no agreed range")
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    planes = np.asarray(image.convert("RGBA")).astype(np.uint16)
    colour, alpha = planes[:, :, :3], planes[:, :, 3:]
    return Image.fromarray(((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))
