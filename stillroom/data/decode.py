"""The decode rule: how a file becomes pixels. It is the same for teacher, student, cache, report and exported file.

1.  The format is detected from the content, never from the name: JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF.
2.  The size in the header is checked before any pixel is decoded: at most `max_pixels`, at least two pixels per side.
3.  The first frame of an animation and the first page of a document are used.
4.  The EXIF orientation is applied.
5.  16-bit channels are scaled to 8 bits by taking the high byte, not clipped. 32-bit and float pixels have no agreed
    range and are refused.
6.  Transparent images are composed over white: (value · alpha + 255 · (255 - alpha)) / 255, rounded.
7.  CMYK, palettes and all other colour spaces are converted to RGB by Pillow, without colour profiles; channels = 1
    takes the ITU-R 601 luminance of the result, channels = 3 repeats a grey image three times.
8.  `resize_and_crop`: the shorter side is resized to `size` (antialiased bicubic) and the centre cropped. An image that
    has this size already is not changed. With boxes and masks it is `resize_square` instead: the whole image is
    stretched to a square.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stillroom.data.errors import ImageTooSmall, NotAnImage, TooManyPixels, UnreadableImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
NAMES = "jpg jpeg jpe jfif png apng webp gif bmp dib tif tiff ppm pgm pbm pnm avif"
SUFFIXES = frozenset(f".{name}" for name in NAMES.split())
MAX_PIXELS = 89_000_000
ORIENTATION_TAG = 0x0112  # of EXIF
TRANSPOSES = {  # by EXIF orientation
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
        blob: the content of the file.
        channels: C, 1 (grey) or 3 (RGB).
        max_pixels: the largest H · W that is decoded.
        name: of the image, for errors.

    Raises:
        StillroomError: SR-D102 damaged, SR-D103 not an image, SR-D105 too large, SR-D106 too small.
    """
    image = open_image(blob, max_pixels=max_pixels, name=name)
    try:
        image.load()
        return _to_channels(apply_orientation(image), channels)
    except MemoryError:
        raise  # a limit of the machine, not a fault of the file
    except Exception as problem:  # Pillow's decoders raise many types of error on malformed input
        raise UnreadableImage(path=name, why=f"Pillow: {problem}") from problem


def read_header(raw: bytes | Pixels, *, max_pixels: int = MAX_PIXELS, name: str = "image") -> tuple[int, int, int]:
    """Height, width and channels (1 grey, 3 colour) of an encoded image or of pixels, without decoding.

    Height and width are as stored, before the EXIF orientation is applied.

    Raises:
        StillroomError: as `decode`, except for damage behind the header.
    """
    if isinstance(raw, np.ndarray):
        height, width = raw.shape[:2]
        _check_size(width, height, max_pixels, name)
        return height, width, 1 if raw.ndim == 2 else raw.shape[2]
    image = open_image(raw, max_pixels=max_pixels, name=name)
    return image.height, image.width, 1 if image.mode in ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L") else 3


def oriented_size(raw: bytes | Pixels, *, max_pixels: int = MAX_PIXELS, name: str = "image") -> tuple[int, int]:
    """Height and width of the decoded image, EXIF orientation included, without decoding.

    Raises:
        StillroomError: as `read_header`.
    """
    if isinstance(raw, np.ndarray):
        return read_header(raw, max_pixels=max_pixels, name=name)[:2]
    image = open_image(raw, max_pixels=max_pixels, name=name)
    try:
        transposed = image.getexif().get(ORIENTATION_TAG, 1) in (5, 6, 7, 8)
    except Exception:  # as in `apply_orientation`
        transposed = False
    return (image.width, image.height) if transposed else (image.height, image.width)


def to_pixels(raw: bytes | Pixels, *, channels: int, max_pixels: int = MAX_PIXELS, name: str = "image") -> Pixels:
    """The result of `Source.read` as [H, W, C] uint8, decoded if it is an encoded file.

    Raises:
        StillroomError: as `decode`.
    """
    if isinstance(raw, bytes):
        return decode(raw, channels=channels, max_pixels=max_pixels, name=name)
    read_header(raw, max_pixels=max_pixels, name=name)
    if raw.dtype != np.uint8 or raw.ndim not in (2, 3) or (raw.ndim == 3 and raw.shape[2] not in (1, 3)):
        raise UnreadableImage(path=name, why=f"expected uint8 [H, W] or [H, W, 1|3], got {raw.dtype} {raw.shape}")
    pixels = raw[:, :, None] if raw.ndim == 2 else raw
    if pixels.shape[2] == channels:
        return pixels
    return _to_channels(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), channels)


def open_image(blob: bytes, *, max_pixels: int, name: str) -> Image.Image:
    """The opened image, its pixels not decoded yet.

    `Image.open` is not used because Pillow's own size limit can be changed only for the whole process, and its error
    does not contain width and height. Pillow's registered openers read the header only.

    Raises:
        StillroomError: as `decode`.
    """
    Image.init()
    reasons = []
    for file_format in FORMATS:
        opener, accepts = Image.OPEN.get(file_format, (None, None))
        try:
            if opener is None or (accepts and accepts(blob[:16]) is not True):
                continue
            image = opener(BytesIO(blob), "")
        except Exception as problem:  # try the next format, as `Image.open` does
            if file_format != "PPM":  # its signature is the letter P, which a text file may also start with
                reasons.append(f"{file_format}: {problem}")
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


def apply_orientation(image: Image.Image) -> Image.Image:
    """The image turned upright by its EXIF orientation."""
    try:
        transpose = TRANSPOSES.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # the pixels are valid even if the EXIF block is damaged
        return image
    return image if transpose is None else image.transpose(transpose)


def _to_channels(image: Image.Image, channels: int) -> Pixels:
    mode = "L" if channels == 1 else "RGB"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _high_byte(image)
    elif image.has_transparency_data:
        image = _on_white(image)
    if image.mode != mode:
        # Two steps for CMYK and similar modes: Pillow can't convert all of them to grey directly.
        image = image if image.mode in ("1", "L", "RGB") else image.convert("RGB")
        image = image if image.mode == mode else image.convert(mode)
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
