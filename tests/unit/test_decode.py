"""The decode rule, against pixels computed by hand in this file, on a real photo, a real digit and odd files."""

from __future__ import annotations

import io
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from stillroom.data.decode import decode, read_header
from stillroom.data.resize import resize_and_crop
from stillroom.errors import StillroomError


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A real photo, [60, 90, 3]."""
    return load_sample_image("flower.jpg")[100:160, 200:290].copy()


@pytest.fixture(scope="module")
def digit() -> np.ndarray:
    return (load_digits().images[3] * 15).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, *, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand: what no library would write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    start = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}), ("PPM", {})]
)
def test_lossless_files_give_exactly_the_pixels(photo, kind, options):
    assert np.array_equal(decode(encoded(Image.fromarray(photo), kind, **options), channels=3), photo)


def test_grey_is_repeated_and_colour_becomes_luminance(photo, digit):
    grey = decode(encoded(Image.fromarray(digit), "PNG"), channels=3)
    assert np.array_equal(grey, np.repeat(digit[:, :, None], 3, axis=2))
    luminance = photo @ np.array([0.299, 0.587, 0.114])
    got = decode(encoded(Image.fromarray(photo), "PNG"), channels=1)
    assert got.shape == (60, 90, 1)
    assert np.abs(got[:, :, 0] - luminance).max() <= 1


def test_cmyk_becomes_rgb(photo):
    cmyk = Image.fromarray(photo).convert("CMYK")
    got = decode(encoded(cmyk, "TIFF"), channels=3)
    planes = np.asarray(cmyk).astype(float)
    expected = (255 - planes[:, :, :3]) * (255 - planes[:, :, 3:]) / 255
    assert np.abs(got - expected).max() <= 1
    jpeg = decode(encoded(cmyk, "JPEG", quality=95), channels=3)
    assert np.abs(jpeg.astype(int) - photo).mean() < 4
    assert decode(encoded(cmyk, "TIFF"), channels=1).shape == (60, 90, 1)


def test_sixteen_bits_are_scaled_not_clipped(digit):
    deep = (digit.astype(np.uint16) << 8) + 17
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    got = decode(png(8, 8, bits=16, colour=0, rows=rows), channels=1)
    assert np.array_equal(got[:, :, 0], digit), "the high byte; clipping would give 255 wherever there is ink"
    tiff = decode(encoded(Image.fromarray(deep), "TIFF"), channels=1)
    assert np.array_equal(tiff[:, :, 0], digit)


def test_sixteen_bits_of_colour_follow_the_same_rule(photo):
    deep = (photo.astype(np.uint16) << 8) + 200
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    assert np.array_equal(decode(png(90, 60, bits=16, colour=2, rows=rows), channels=3), photo)


def test_pixels_without_an_agreed_range_are_refused(digit):
    for values in (digit.astype(np.float32), digit.astype(np.int32) * 100_000):
        with pytest.raises(StillroomError, match="no agreed range") as caught:
            decode(encoded(Image.fromarray(values), "TIFF"), channels=1)
        assert caught.value.code == "SR-D102"


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.floor((colour * alpha + 255.0 * (255 - alpha)) / 255 + 0.5)


def test_alpha_lies_on_white(photo):
    alpha = np.linspace(0, 255, 60 * 90).reshape(60, 90, 1).astype(np.uint8)
    rgba = Image.fromarray(np.concatenate([photo, alpha], axis=2))
    expected = on_white(photo.astype(float), alpha.astype(float))
    assert np.array_equal(decode(encoded(rgba, "PNG"), channels=3), expected)
    la = rgba.convert("LA")
    grey = np.asarray(la).astype(float)
    assert np.abs(decode(encoded(la, "PNG"), channels=1)[:, :, 0] - on_white(grey[..., 0], grey[..., 1])).max() <= 1
    assert decode(encoded(la, "PNG"), channels=3)[0, 0].tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour_lies_on_white(photo):
    palette = Image.fromarray(photo).quantize(16)
    places = np.asarray(palette)
    expected = np.asarray(palette.convert("RGB")).copy()
    expected[places == 5] = 255
    for kind in ("PNG", "GIF"):
        assert np.array_equal(decode(encoded(palette, kind, transparency=5), channels=3), expected), kind


@pytest.mark.parametrize(
    ("tag", "undo"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, -1)),
    ],
)
def test_exif_orientation_is_applied(photo, tag, undo):
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = Image.fromarray(np.ascontiguousarray(undo(photo)))  # turned so that the tag turns it back
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(decode(encoded(stored, kind, exif=exif), channels=3), photo), (tag, kind)


def test_a_broken_exif_block_does_not_cost_the_image(photo):
    blob = encoded(Image.fromarray(photo), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert np.array_equal(decode(blob, channels=3), photo)


def test_the_first_frame_of_an_animation(photo):
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    blob = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(decode(blob, channels=3), photo)
    gif = encoded(frames[0].quantize(8), "GIF", save_all=True, append_images=[frames[1].quantize(8)])
    assert np.array_equal(decode(gif, channels=3), np.asarray(frames[0].quantize(8).convert("RGB")))


def test_a_bomb_is_refused_from_its_header(photo):
    bomb = png(60_000, 60_000, bits=8, colour=2, rows=bytes(10_000))
    assert len(bomb) < 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for function in (decode, read_header):
        with pytest.raises(StillroomError) as caught:
            function(bomb, max_pixels=89_000_000, name="bomb.png", **({"channels": 3} if function is decode else {}))
        assert caught.value.code == "SR-D105"
        assert "image 60000×60000 exceeds data.max_pixels=89000000" in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024, "kB: nothing was decoded"
    assert Image.MAX_IMAGE_PIXELS is not None


def test_max_pixels_may_be_raised_above_the_library_s_own_limit(monkeypatch, photo):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Image.open would refuse more than 200 pixels
    assert np.array_equal(decode(encoded(Image.fromarray(photo), "PNG"), channels=3, max_pixels=5400), photo)
    with pytest.raises(StillroomError, match="SR-D105"):
        decode(encoded(Image.fromarray(photo), "PNG"), channels=3, max_pixels=5399)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_one_pixel_is_no_image(size):
    with pytest.raises(StillroomError, match=r"SR-D106 image .* is too small"):
        decode(encoded(Image.new("RGB", size), "PNG"), channels=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_unreadable(photo, kind):
    blob = encoded(Image.fromarray(photo), kind)
    with pytest.raises(StillroomError) as caught:
        decode(blob[: len(blob) * 6 // 10], channels=3, name="cat/0042.jpg")
    assert caught.value.code == "SR-D102"
    assert "cat/0042.jpg" in str(caught.value) and caught.value.exit == 3


@pytest.mark.parametrize(
    "blob", [b"", b"hello, I am a text\n", b"P", b"Pyramids are not images", b"%!PS-Adobe-3.0 EPSF"]
)
def test_what_is_not_an_image_says_so(blob):
    with pytest.raises(StillroomError, match=rf"SR-D103 not an image \({len(blob)} bytes\)"):
        decode(blob, channels=3, name="notes.jpg")


@pytest.mark.parametrize("length", [3, 9, 20, 60, 150])
def test_any_beginning_of_a_file_is_a_clean_failure(photo, length):
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"):
        with pytest.raises(StillroomError):
            decode(encoded(Image.fromarray(photo), kind)[:length], channels=3)


def test_header_tells_the_size_without_decoding(photo, digit):
    blob = encoded(Image.fromarray(photo), "PNG")
    assert read_header(blob[:200]) == (60, 90, 3), "the pixels aren't even there"
    assert read_header(encoded(Image.fromarray(digit), "PNG")) == (8, 8, 1)
    assert read_header(digit) == (8, 8, 1)


def test_fit_keeps_what_has_the_size_and_centres_the_rest(photo):
    square = photo[:, 15:75]
    assert resize_and_crop(square, size=60) is square
    assert np.array_equal(resize_and_crop(photo, size=60), square), "no scaling: the crop alone"
    got = resize_and_crop(photo, size=20)
    whole = np.asarray(Image.fromarray(photo).resize((30, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(got, whole[:, 5:25]), "resize the whole, then crop"
    assert resize_and_crop(photo[:, :, :1], size=20).shape == (20, 20, 1)
