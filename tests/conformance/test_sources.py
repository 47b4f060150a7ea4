"""Every source keeps the contract, on real digits written to disk in its own layout. A new file is tested by itself,
and asks for a line in `FACTORIES` that builds it."""

from __future__ import annotations

import gzip
import inspect
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from stillroom.config import plugins
from stillroom.data.dataset import load_dataset
from stillroom.data.decode import to_pixels
from stillroom.data.infer_source import infer_source
from stillroom.data.inspect import inspect as look
from stillroom.data.loader import Loader, in_order
from stillroom.data.sources.source import Source

DATA = load_digits()
PIXELS = np.floor(DATA.images * 255 / 16 + 0.5).astype(np.uint8)
N = 300


def png(item: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[item]).save(file, "PNG")
    return file.getvalue()


def digits(path: Path) -> dict[str, str]:
    return {}


def folder(path: Path) -> dict[str, str]:
    for item in range(N):
        file = path / str(DATA.target[item]) / f"{item:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(item))
    return {"path": str(path)}


def parquet(path: Path) -> dict[str, str]:
    images = pa.array([{"bytes": png(item), "path": f"{item:05}.png"} for item in range(N)])
    pq.write_table(pa.table({"image": images, "label": DATA.target[:N]}), path / "train.parquet")
    return {"path": str(path)}


def idx(path: Path) -> dict[str, str]:
    for what, values in (("images", PIXELS[:N]), ("labels", DATA.target[:N].astype(np.uint8))):
        blob = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
        (path / f"train-{what}-idx{values.ndim}-ubyte.gz").write_bytes(gzip.compress(blob, 1))
    return {"path": str(path)}


def coco(path: Path) -> dict[str, str]:
    """The whole image is the box."""
    write_images(path / "images")
    content = {
        "images": [{"id": i, "file_name": f"{i:05}.png", "width": 8, "height": 8} for i in range(N)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 5 + int(DATA.target[i]), "bbox": [0, 0, 8, 8]} for i in range(N)
        ],
        "categories": [{"id": 5 + k, "name": str(k)} for k in range(10)],
    }
    (path / "all.json").write_text(json.dumps(content))
    return {"path": str(path)}


def voc(path: Path) -> dict[str, str]:
    write_images(path / "JPEGImages")
    (path / "Annotations").mkdir()
    for item in range(N):
        box = "<xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>8</ymax>"
        text = f"<object><name>{DATA.target[item]}</name><bndbox>{box}</bndbox></object>"
        (path / "Annotations" / f"{item:05}.xml").write_text(f"<annotation>{text}</annotation>")
    return {"path": str(path)}


def masks(path: Path) -> dict[str, str]:
    """All pixels are of the digit's class."""
    write_images(path / "images")
    (path / "labels").mkdir()
    for item in range(N):
        mask = np.full((8, 8), DATA.target[item], dtype=np.uint8)
        Image.fromarray(mask).save(path / "labels" / f"{item:05}.png")
    return {"path": str(path)}


def images(path: Path) -> dict[str, Any]:
    """Nobody says which digit is which; how the teacher calls its classes is an argument."""
    write_images(path / "all")
    return {"path": str(path / "all"), "classes": tuple("0123456789")}


def write_images(folder: Path) -> None:
    folder.mkdir()
    for item in range(N):
        (folder / f"{item:05}.png").write_bytes(png(item))


FACTORIES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "digits": digits,
    "folder": folder,
    "parquet": parquet,
    "idx": idx,
    "coco": coco,
    "voc": voc,
    "masks": masks,
    "images": images,
    "auto": folder,
}
"""Source -> what lays the first 300 digits (or more) out in a folder for it, and the arguments that read them."""


@pytest.fixture(scope="module", params=plugins.choices("data/sources"))
def built(request, tmp_path_factory) -> tuple[str, Source, dict[str, Any]]:
    name = request.param
    if name not in FACTORIES:
        pytest.fail(f"stillroom/data/sources/{name}.py has no factory: add one to FACTORIES in {Path(__file__).name}")
    arguments = FACTORIES[name](tmp_path_factory.mktemp(name))
    return name, plugins.pick("data/sources", name)(**arguments), arguments


def test_it_is_a_source(built):
    name, source, _ = built
    assert isinstance(source, Source)
    assert plugins.pick("data/sources", name).__doc__
    parameters = inspect.signature(type(source)).parameters.values()
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)


def test_classes_and_labels(built):
    _, source, _ = built
    assert source.classes == tuple("0123456789")
    assert source.channels == 1
    assert source.labels.dtype == np.int64 and source.labels.ndim == 1
    assert len(source.labels) >= N


def test_splits_are_disjoint_items(built):
    _, source, _ = built
    assert set(source.splits) <= {"train", "val", "test"}
    items = np.concatenate([*source.splits.values(), np.empty(0, np.int64)])
    assert items.dtype == np.int64
    assert len(np.unique(items)) == len(items)
    assert np.isin(items, np.arange(len(source.labels))).all()


def test_every_item_is_the_digit_it_says(built):
    """As a set, because a source may have its own order: each image once, with its own label."""
    _, source, _ = built
    got = []
    for item in range(len(source.labels)):
        raw = source.read(item)
        assert isinstance(raw, bytes) or raw.dtype == np.uint8
        got.append((to_pixels(raw, channels=1).tobytes(), int(source.labels[item])))
    known = bool((source.labels >= 0).any())
    expected = [(PIXELS[item].tobytes(), int(DATA.target[item]) if known else -1) for item in range(len(got))]
    assert sorted(got) == sorted(expected)


def test_names_are_distinct_and_printable(built):
    _, source, _ = built
    names = [source.name(item) for item in range(len(source.labels))]
    assert len(set(names)) == len(names)
    assert all(isinstance(name, str) and name.encode("utf-8") for name in names)


def test_reading_twice_and_building_twice_is_the_same(built):
    name, source, arguments = built
    again = plugins.pick("data/sources", name)(**arguments)
    assert np.array_equal(again.labels, source.labels) and again.classes == source.classes
    for item in (0, 17, len(source.labels) - 1):
        assert source.name(item) == again.name(item)
        assert np.array_equal(to_pixels(source.read(item), channels=1), to_pixels(again.read(item), channels=1))
    assert load_dataset(again).fingerprint == load_dataset(source).fingerprint


def test_its_arguments_are_kept_unchanged(built):
    _, source, arguments = built
    assert {name: getattr(source, name) for name in arguments} == arguments


def test_its_path_is_recognised(built):
    name, source, arguments = built
    assert plugins.pick("data/sources", infer_source(arguments.get("path", name))) is type(source)


def test_the_whole_way_to_batches(built):
    _, source, _ = built
    data = load_dataset(source)
    assert data.size == 8 and look(source, data) == []
    batch = Loader(data.splits["train"], batch=16, seed=0).at(3)
    labels = classes_of(data.kind, batch.target)
    for image, label, item in zip(batch.images, labels, batch.keys, strict=True):
        stored = to_pixels(source.read(int(item)), channels=1)[:, :, 0]
        assert torch.equal(image[0], torch.from_numpy(stored / np.float32(255)))
        assert source.labels[int(item)] == label
    assert sum(len(b) for b in in_order(data.splits["test"], 50)) == len(data.splits["test"])


def classes_of(kind: str, target) -> torch.Tensor:
    """What the target says each digit is, and that it says so of the whole image."""
    if kind == "labels":
        return target
    if kind == "masks":
        assert target.shape[1:] == (8, 8) and (target == target[:, :1, :1]).all()
        return target[:, 0, 0]
    assert target["labels"].shape[1] == 1 and target["known"].all() and not target["crowd"].any()
    assert target["boxes"].tolist() == [[[0, 0, 1, 1]]] * len(target["labels"])
    assert target["size"].tolist() == [[8, 8]] * len(target["labels"])
    return target["labels"][:, 0]
