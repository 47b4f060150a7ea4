"""Real digit scans lying on a grey canvas, written as COCO, VOC and mask data sets: small, true, and known exactly.

    low   the digits 0 to 3
    mid   4 to 6
    high  7 to 9

Scene n holds 3, 1, 2 or no digits, in turn. They don't touch each other. A box is the smallest rectangle around the
ink, its right and bottom edge behind the last pixel; in the mask the ink has its class (0 is the canvas) and the pixels
next to it are void. The first two thirds of the scenes are train, then a sixth val, a sixth test.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

CLASSES = ("low", "mid", "high")
MASK_CLASSES = ("canvas", *CLASSES)
VOID = 255
CANVAS = 96
NOISE = 4  # of the canvas, either way: no two scenes have the same bytes, empty ones neither
INK = 128  # of a scan, 0..255: what is brighter is the digit
COUNTS = (3, 1, 2, 0)

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """One image and all that is known of it.

    Attributes:
        name: file name without a suffix, "0007".
        image: [side, side] uint8.
        boxes: [M, 4] float64, left, top, right, bottom in pixels.
        labels: [M] int64, indices of `CLASSES`.
        mask: [side, side] uint8, indices of `MASK_CLASSES`, or `VOID`.
    """

    name: str
    image: Grey
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    mask: Grey


def scenes(images: int = 24, side: int = 64, *, seed: int = 0) -> list[Scene]:
    """The first `images` scenes: a longer list of the same side and seed begins with the shorter one."""
    return [_scene(number, side, seed) for number in range(images)]


def split_of(number: int, images: int) -> str:
    """Which split scene `number` of `images` is in."""
    return "train" if number < 2 * images // 3 else "val" if number < 5 * images // 6 else "test"


def coco_scenes(
    root: Path, *, images: int = 24, side: int = 64, channels: int = 3, seed: int = 0, split: bool = True
) -> Path:
    """`root/{train,val,test}.json` and `root/images/0000.png ...`; without `split`, `root/all.json` instead. Returns
    `root`, which is the source's `path`. Category ids are 3, 7, 11: sparse, as COCO's own."""
    made = scenes(images, side, seed=seed)
    _write_images(made, root / "images", channels)
    names = ("train", "val", "test") if split else ("all",)
    for name in names:
        chosen = [n for n in range(images) if name == "all" or split_of(n, images) == name]
        (root / f"{name}.json").write_text(json.dumps(_coco(made, chosen)))
    return root


def voc_scenes(
    root: Path, *, images: int = 24, side: int = 64, channels: int = 3, seed: int = 0, split: bool = True
) -> Path:
    """`root/Annotations/0000.xml`, `root/JPEGImages/0000.png` and, with `split`, `root/ImageSets/Main/*.txt`. Returns
    `root`. Boxes are written VOC's way: the first and the last pixel, counted from 1."""
    made = scenes(images, side, seed=seed)
    _write_images(made, root / "JPEGImages", channels)
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for scene in made:
        (root / "Annotations" / f"{scene.name}.xml").write_text(_voc(scene, channels))
    if split:
        lists = root / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        for name in ("train", "val", "test"):
            lines = [scene.name for n, scene in enumerate(made) if split_of(n, images) == name]
            (lists / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def mask_scenes(
    root: Path, *, images: int = 24, side: int = 64, channels: int = 3, seed: int = 0, split: bool = True
) -> Path:
    """`root/{train,val,test}/{images,labels}/0000.png` and `root/classes.txt`; without `split`,
    `root/{images,labels}/0000.png`. Returns `root`."""
    made = scenes(images, side, seed=seed)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(MASK_CLASSES)))
    for number, scene in enumerate(made):
        folder = root / split_of(number, images) if split else root
        _write_images([scene], folder / "images", channels)
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.mask).save(folder / "labels" / f"{scene.name}.png")
    return root


@lru_cache(maxsize=1)
def _scans() -> tuple[Grey, NDArray[np.int64]]:
    data = load_digits()
    return np.floor(data.images * (255 / 16) + 0.5).astype(np.uint8), data.target.astype(np.int64)


def _scene(number: int, side: int, seed: int) -> Scene:
    draw = np.random.default_rng((seed, number))
    scans, digits = _scans()
    canvas = CANVAS + draw.integers(-NOISE, NOISE + 1, (side, side))
    ink = np.zeros((side, side), np.uint8)
    mask = np.zeros((side, side), np.uint8)
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    for _ in range(COUNTS[number % len(COUNTS)]):
        chosen = int(draw.integers(len(scans)))
        scan, (left, top) = _place(scans[chosen], mask, draw)
        part = (slice(top, top + len(scan)), slice(left, left + len(scan)))
        ink[part] = np.maximum(ink[part], scan)
        label = int(np.searchsorted([4, 7], digits[chosen], side="right"))
        drawn = scan >= INK
        mask[part] = np.where(drawn, label + 1, mask[part])
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        boxes.append((left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1))
        labels.append(label)
    return Scene(
        name=f"{number:04}",
        image=np.maximum(ink, canvas).astype(np.uint8),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        mask=_ringed(mask),
    )


def _place(scan: Grey, taken: Grey, draw: np.random.Generator) -> tuple[Grey, tuple[int, int]]:
    """The scan at a drawn size, and a place where it meets nothing that lies there already."""
    canvas = len(taken)
    while True:
        size = int(draw.integers(round(canvas * 0.25), round(canvas * 0.45) + 1))
        large = np.asarray(Image.fromarray(scan).resize((size, size), Image.Resampling.BILINEAR))
        left, top = (int(value) for value in draw.integers(1, canvas - size, size=2))
        if not taken[top - 1 : top + size + 1, left - 1 : left + size + 1].any():
            return large, (left, top)


def _ringed(mask: Grey) -> Grey:
    """The mask with void where a canvas pixel touches ink."""
    wide = np.pad(mask > 0, 1)
    height, width = mask.shape
    near = np.any([wide[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return np.where(near & (mask == 0), VOID, mask).astype(np.uint8)


def _write_images(made: Sequence[Scene], folder: Path, channels: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for scene in made:
        image = Image.fromarray(scene.image)
        (image.convert("RGB") if channels == 3 else image).save(folder / f"{scene.name}.png")


def _coco(made: Sequence[Scene], chosen: Sequence[int]) -> dict[str, object]:
    marks = [
        {"image_id": 100 + n, "category_id": 3 + 4 * int(label), "bbox": [left, top, right - left, bottom - top]}
        for n in chosen
        for (left, top, right, bottom), label in zip(made[n].boxes.tolist(), made[n].labels, strict=True)
    ]
    for number, mark in enumerate(marks):
        mark |= {"id": number + 1, "area": mark["bbox"][2] * mark["bbox"][3], "iscrowd": 0}
    return {
        "images": [
            {
                "id": 100 + n,
                "file_name": f"{made[n].name}.png",
                "width": len(made[n].image),
                "height": len(made[n].image),
            }
            for n in chosen
        ],
        "annotations": marks,
        "categories": [{"id": 3 + 4 * k, "name": name} for k, name in enumerate(CLASSES)],
    }


def _voc(scene: Scene, channels: int) -> str:
    side = len(scene.image)
    objects = "".join(
        f"<object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox><xmin>{left + 1:.0f}</xmin>"
        f"<ymin>{top + 1:.0f}</ymin><xmax>{right:.0f}</xmax><ymax>{bottom:.0f}</ymax></bndbox></object>\n"
        for (left, top, right, bottom), label in zip(scene.boxes.tolist(), scene.labels, strict=True)
    )
    size = f"<size><width>{side}</width><height>{side}</height><depth>{channels}</depth></size>"
    return f"<annotation><filename>{scene.name}.png</filename>{size}\n{objects}</annotation>\n"
