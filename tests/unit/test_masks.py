"""Images with masks: which belong together, what the numbers mean, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from kit.scenes import MASK_CLASSES, mask_scenes, scenes, split_of
from PIL import Image

from stillroom.data.dataset import load_dataset
from stillroom.data.decode_mask import decode_mask
from stillroom.data.infer_source import infer_source
from stillroom.data.inspect import inspect
from stillroom.data.sources.masks import Masks
from stillroom.errors import StillroomError


def code(call) -> str:
    with pytest.raises(StillroomError) as caught:
        call()
    return caught.value.code


def save(values, file: Path, mode: str = "L") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(values, dtype=np.uint8))
    if mode == "P":
        picture.putpalette([7 * n % 256 for n in range(768)])
    picture.save(file)


def pair(root: Path, name: str, values, *, mode: str = "L", size=(4, 4)) -> None:
    save(values, root / "labels" / f"{name}.png", mode)
    photo = np.random.default_rng(len(name) + ord(name[-1])).integers(0, 256, (*size, 3))
    save(photo, root / "images" / f"{name}.jpg")


@pytest.mark.parametrize("split", [True, False])
def test_every_scene_is_read_as_it_was_made(tmp_path, split):
    source = Masks(path=str(mask_scenes(tmp_path, split=split)))
    made = {scene.name: (number, scene) for number, scene in enumerate(scenes())}
    assert source.kind == "masks" and source.classes == MASK_CLASSES and source.channels == 3
    assert len(source.labels) == 24 and set(source.splits) == ({"train", "val", "test"} if split else set())
    for i in range(24):
        number, scene = made[Path(source.name(i)).stem]
        assert np.array_equal(decode_mask(source.mask(i)), scene.mask)
        assert not split or i in source.splits[split_of(number, 24)]


def test_strata_are_the_rarest_class_where_a_split_must_be_made(tmp_path):
    assert (Masks(path=str(mask_scenes(tmp_path / "a"))).labels == -1).all()
    source = Masks(path=str(mask_scenes(tmp_path / "b", split=False)))
    held = [set(np.unique(scene.mask)) - {255} for scene in scenes()]
    images = [sum(k in classes for classes in held) for k in range(4)]
    for label, classes in zip(source.labels, held, strict=True):
        assert label in classes and images[label] == min(images[k] for k in classes)


def test_guess(tmp_path):
    assert (
        infer_source(str(mask_scenes(tmp_path / "a")))
        == infer_source(str(mask_scenes(tmp_path / "b", split=False)))
        == "masks"
    )
    (tmp_path / "c" / "images").mkdir(parents=True)
    (tmp_path / "c" / "labels").mkdir()
    save(np.zeros((4, 4)), tmp_path / "c" / "images" / "a.png")
    (tmp_path / "c" / "labels" / "a.txt").write_text("0 0.5 0.5 1 1")
    assert not Masks.matches(tmp_path / "c"), "text files are no masks"


@pytest.mark.parametrize(
    ("text", "classes", "values"),
    [
        ("sky\nroad\n", ("sky", "road"), {0: 0, 1: 1, 2: -2, 255: -1}),
        ("0 sky\n2 long name\n1 Unlabelled\n", ("sky", "long name"), {0: 0, 1: -1, 2: 1, 3: -2, 255: -1}),
        ("7 cat\n\n9 void\n", ("cat",), {0: -2, 7: 0, 9: -1, 255: -1}),
    ],
)
def test_classes_txt(tmp_path, text, classes, values):
    pair(tmp_path, "a", np.zeros((4, 4)))
    (tmp_path / "classes.txt").write_text(text)
    source = Masks(path=str(tmp_path))
    assert source.classes == classes and {n: int(source.values[n]) for n in values} == values


@pytest.mark.parametrize("text", ["0 sky\n0 road\n", "256 sky\n", "1 sky\nroad\n"])
def test_classes_txt_that_is_none(tmp_path, text):
    pair(tmp_path, "a", np.zeros((4, 4)))
    (tmp_path / "classes.txt").write_text(text)
    assert code(lambda: Masks(path=str(tmp_path))) == "SR-D132"


def test_without_names_the_classes_are_the_numbers_in_train(tmp_path):
    pair(tmp_path / "train", "a", [[0, 3], [255, 1]], size=(2, 2))
    pair(tmp_path / "test", "b", [[0, 6], [255, 1]], size=(2, 2))
    source = Masks(path=str(tmp_path))
    assert source.classes == ("0", "1", "2", "3") and source.values[[3, 6, 255]].tolist() == [3, -2, -1]
    source = Masks(path=str(tmp_path), void=(255, 3))
    assert source.void == (255, 3) and source.classes == ("0", "1"), "what is void is no class"
    with pytest.raises(ValueError, match=r"^void "):
        Masks(path=str(tmp_path), void=(256,))


def test_images_and_masks_without_partner_are_left_out_and_told(tmp_path):
    for name in "abc":
        pair(tmp_path, name, np.arange(16).reshape(4, 4) % 2)
    (tmp_path / "labels" / "b.png").unlink()
    (tmp_path / "images" / "c.jpg").unlink()
    source = Masks(path=str(tmp_path))
    assert [Path(source.name(i)).stem for i in range(len(source.labels))] == ["a"]
    assert [Path(name).stem for name in source.skipped] == ["b"]


def test_palettes_mean_nothing():
    for mode in ("L", "P"):
        file = io.BytesIO()
        picture = Image.fromarray(np.array([[0, 3], [255, 1]], dtype=np.uint8))
        if mode == "P":
            picture.putpalette([7 * n % 256 for n in range(768)])
        picture.save(file, "PNG")
        assert decode_mask(file.getvalue()).tolist() == [[0, 3], [255, 1]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_few_bits_is_not_stretched_to_255(bits):
    """A PNG written by hand: width 4, height 1, numbers 0, 1, 2, 3 (or 0 and 1)."""
    values = [n % 2**bits for n in range(4)]
    row = sum(value << (32 - bits * (place + 1)) for place, value in enumerate(values)).to_bytes(4, "big")
    row = row[: max(1, bits * 4 // 8)]

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + row) * 2
    head = struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0)
    blob = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert decode_mask(blob).tolist() == [values] * 2


@pytest.mark.parametrize("mode", ["RGB", "I;16", "JPEG"])
def test_masks_that_are_pictures(mode):
    file = io.BytesIO()
    values = np.zeros((4, 4, 3) if mode == "RGB" else (4, 4), np.uint16 if mode == "I;16" else np.uint8)
    Image.fromarray(values).save(file, "JPEG" if mode == "JPEG" else "PNG")
    assert code(lambda: decode_mask(file.getvalue())) == "SR-D122"


def test_links_that_lead_outside(tmp_path):
    for name in "ab":
        pair(tmp_path / "data", name, np.zeros((4, 4)))
    (tmp_path / "data" / "labels" / "a.png").rename(tmp_path / "a.png")
    (tmp_path / "data" / "labels" / "a.png").symlink_to(tmp_path / "a.png")
    assert code(lambda: Masks(path=str(tmp_path / "data"))) == "SR-S201"
    assert len(Masks(path=str(tmp_path / "data"), allow_outside=True).labels) == 2


def test_missing_parts(tmp_path):
    assert code(lambda: Masks(path=str(tmp_path))) == "SR-D109"
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    assert code(lambda: Masks(path=str(tmp_path))) == "SR-D108"
    assert code(lambda: Masks(path=str(tmp_path / "nowhere"))) == "SR-D101"


def test_street_scenes(shared):
    source = Masks(path=str(shared / "camvid"))
    assert len(source.classes) == 11 and source.classes[0] == "Sky" and source.classes[-1] == "Bicyclist"
    assert source.values[11] == -1 and {name: len(items) for name, items in source.splits.items()} == {
        "train": 72,
        "val": 24,
        "test": 32,
    }
    data = load_dataset(source, size=64)
    images, target, items = data.splits["val"].take(np.array([3]))
    stored = decode_mask(source.mask(int(items[0])))
    assert images.shape == (1, 3, 64, 64) and stored.shape == (360, 480)
    y, x = (np.floor((np.arange(64) + 0.5) * side / 64).astype(int) for side in stored.shape)
    nearest = stored[y][:, x].astype(int)
    assert np.array_equal(target[0].numpy(), np.where(nearest == 11, -1, nearest))
    assert inspect(source, data) == []
