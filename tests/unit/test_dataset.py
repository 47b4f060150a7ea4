"""What `load` makes of good and bad images; the bad ones are real digits, spoilt."""

from __future__ import annotations

import csv
import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from stillroom.data.dataset import load_dataset
from stillroom.data.loader import Loader, in_order
from stillroom.data.sources.digits import Digits
from stillroom.data.sources.folder import Folder
from stillroom.errors import StillroomError

DATA = load_digits()
PIXELS = (DATA.images * 15).astype(np.uint8)
EMPTY, TEXT, CUT = b"", b"not an image at all", None


def blob(item: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[item]).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path):
    """A split folder of 300 digits; `folder(bad)` spoils the files named in {item: how}."""

    def make(bad: dict[int, bytes | None] | None = None) -> Folder:
        for item in range(300):
            split = "test" if item % 5 == 0 else "val" if item % 5 == 1 else "train"
            path = tmp_path / "data" / split / str(DATA.target[item]) / f"{item:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = blob(item)
            if bad and item in bad:
                content = content[: len(content) * 6 // 10] if bad[item] is None else bad[item]
            path.write_bytes(content)
        return Folder(path=str(tmp_path / "data"))

    return make


class Watched:
    """Digits, noting what is read."""

    def __init__(self) -> None:
        inner = Digits()
        self.classes, self.channels, self.labels, self.splits = inner.classes, 1, inner.labels, {}
        self.inner, self.seen = inner, []

    def name(self, item: int) -> str:
        return self.inner.name(item)

    def read(self, item: int) -> np.ndarray:
        self.seen.append(item)
        return self.inner.read(item)


def number(source: Folder, item: int) -> int:
    return int(Path(source.name(int(item))).stem)


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_pixels_labels_and_items_belong_together(folder, memory_gb):
    source = folder()
    data = load_dataset(source, memory_gb=memory_gb)
    assert (data.size, data.channels, len(data.classes)) == (8, 1, 10)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 180, "val": 60, "test": 60}
    for split in data.splits.values():
        rows = np.arange(len(split))[::-3]
        images, labels, items = split.take(rows)
        assert images.dtype == torch.uint8 and images.shape == (len(rows), 1, 8, 8)
        assert np.array_equal(split.items[rows], items) and np.array_equal(split.labels[rows], labels)
        for image, label, item in zip(images, labels, items, strict=True):
            assert np.array_equal(image[0].numpy(), PIXELS[number(source, item)])
            assert label == DATA.target[number(source, item)]
        assert torch.equal(split.images(rows), images)


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_the_test_split_is_closed_until_asked_and_the_others_decoded_on_first_use(memory_gb):
    source = Watched()
    data = load_dataset(source, memory_gb=memory_gb)
    test = set(data.splits["test"].listed.tolist())
    source.seen.clear()
    data.summary()
    assert source.seen == []
    loader = Loader(data.splits["train"], batch=32, seed=0)
    loader.at(0), loader.at(50)
    list(in_order(data.splits["val"], 64))
    assert source.seen and not test & set(source.seen)
    source.seen.clear()
    assert sum(len(batch) for batch in in_order(data.splits["test"], 64)) == len(test) == 359
    assert set(source.seen) == test


def test_load_does_not_read_the_test_split():
    source = Watched()
    data = load_dataset(source)
    assert not set(data.splits["test"].listed.tolist()) & set(source.seen)


def test_in_memory_a_split_is_decoded_once():
    source = Watched()
    data = load_dataset(source)
    source.seen.clear()
    for n in range(100):
        Loader(data.splits["train"], batch=64, seed=0).at(n)
    assert len(source.seen) == len(data.splits["train"])


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize("spoilt", [EMPTY, TEXT, CUT], ids=["empty", "text", "truncated"])
def test_bad_training_images_are_replaced_by_the_next_valid(folder, tmp_path, memory_gb, spoilt):
    source = folder({2: spoilt, 12: spoilt, 4: spoilt})  # all in train; 2 and 12 are neighbours among the twos
    assert DATA.target[2] == DATA.target[12] == 2
    data = load_dataset(source, memory_gb=memory_gb, max_bad=0.05, report=tmp_path / "run")
    train = data.splits["train"]
    rows = np.arange(180)
    images, labels, items = train.take(rows)
    good = [item for item in train.listed.tolist() if number(source, item) not in (2, 4, 12)]
    for row, (image, label, item) in enumerate(zip(images, labels, items, strict=True)):
        expected = min(good, key=lambda other, row=row: (np.flatnonzero(train.listed == other)[0] - row) % 180)
        assert item == expected
        assert np.array_equal(image[0].numpy(), PIXELS[number(source, expected)]), "the replacement's pixels"
        assert label == DATA.target[number(source, expected)], "and its label"
    assert len(train) == 180 and np.array_equal(train.items, items)
    with (tmp_path / "run" / "bad_files.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in table] == ["0002.png", "0012.png", "0004.png"]
    assert {row["code"] for row in table} == {{EMPTY: "SR-D103", TEXT: "SR-D103", CUT: "SR-D102"}[spoilt]}
    assert {row["split"] for row in table} == {"train"} and len(data.bad) == 3
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["bad_files.csv"], "no litter"


def test_batches_keep_their_size_and_do_not_depend_on_memory_or_history(folder):
    source = folder({2: CUT, 12: CUT, 4: EMPTY})
    kept, streamed = (
        Loader(load_dataset(source, memory_gb=gb, max_bad=0.05).splits["train"], batch=64, seed=1) for gb in (1, 0)
    )
    last = streamed.at(7)
    for n in range(8):
        a, b = kept.at(n), streamed.at(n)
        assert len(a) == 64
        assert torch.equal(a.images, b.images) and torch.equal(a.target, b.target) and torch.equal(a.keys, b.keys)
    assert torch.equal(last.images, b.images)


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_bad_test_images_are_left_out(folder, memory_gb):
    source = folder({5: CUT, 10: EMPTY})
    data = load_dataset(source, memory_gb=memory_gb, max_bad=0.05)
    assert data.bad == [], "nobody has looked yet"
    test = data.splits["test"]
    seen = [int(key) for batch in in_order(test, 16) for key in batch.keys]
    assert sorted(number(source, item) for item in seen) == [n for n in range(0, 300, 5) if n not in (5, 10)]
    assert len(test) == len(test.labels) == len(test.items) == 58
    assert sorted(Path(bad.path).name for bad in data.bad) == ["0005.png", "0010.png"]


def test_above_max_bad_it_stops_naming_count_and_list(folder, tmp_path):
    source = folder({2: EMPTY, 3: EMPTY, 4: EMPTY, 7: EMPTY})  # 4 of 300 > 1 %
    with pytest.raises(StillroomError) as caught:
        load_dataset(source, report=tmp_path / "run")
    assert caught.value.code == "SR-D107" and caught.value.exit == 3
    text = str(caught.value)
    assert "4 of 300 images" in text and str(tmp_path / "run" / "bad_files.csv") in text and "SR-D103" in text
    assert len((tmp_path / "run" / "bad_files.csv").read_text().splitlines()) == 5
    load_dataset(source, max_bad=4 / 300)


def test_truncation_is_counted_when_it_is_met(folder):
    source = folder({item: CUT for item in (2, 3, 4, 7)})
    for memory_gb in (1.0, 0.0):
        data = load_dataset(source, memory_gb=memory_gb)
        with pytest.raises(StillroomError, match="4 of 300"):
            data.splits["train"].take(np.arange(180))
    with pytest.raises(StillroomError, match="SR-D107"):
        load_dataset(source, max_bad=0).splits["train"].take(np.arange(180))


def test_nothing_readable(folder):
    source = folder({item: EMPTY for item in range(300)})
    with pytest.raises(StillroomError, match="SR-D108"):
        load_dataset(source, max_bad=1.0)


def sized(tmp_path: Path, sizes: list[tuple[int, int]]) -> Folder:
    for place in range(len(sizes) * 20):
        width, height = sizes[place % len(sizes)]
        path = tmp_path / "sized" / str(place % 2) / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[place]).resize((width, height)).save(path)
    return Folder(path=str(tmp_path / "sized"))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(20, 20)], 20),
        ([(300, 300)], 300),
        ([(20, 30)], 20),
        ([(40, 60), (50, 50), (90, 80)], 50),
        ([(400, 300)], 224),
    ],
)
def test_the_size_when_none_is_asked_for(tmp_path, sizes, expected):
    data = load_dataset(sized(tmp_path, sizes))
    assert data.size == expected
    assert data.splits["val"].images(np.arange(2)).shape == (2, 1, expected, expected)


def test_a_size_that_is_asked_for(tmp_path):
    source = sized(tmp_path, [(20, 32)])
    image = load_dataset(source, size=10).splits["train"].images(np.array([0]))[0, 0]
    item = int(load_dataset(source, size=10).splits["train"].items[0])
    whole = Image.open(io.BytesIO(source.read(item))).resize((10, 16), Image.Resampling.BICUBIC)
    assert np.abs(image.numpy().astype(int) - np.asarray(whole)[3:13]).max() <= 1, "the library rounds its weights"


def test_the_fingerprint_changes_with_anything_that_matters_and_with_nothing_else(folder, tmp_path):
    source = folder()
    first = load_dataset(source).fingerprint
    assert load_dataset(source).fingerprint == first == load_dataset(source, memory_gb=0).fingerprint
    (tmp_path / "data").rename(tmp_path / "moved")
    assert load_dataset(Folder(path=str(tmp_path / "moved"))).fingerprint == first
    others = {
        load_dataset(Digits()).fingerprint,
        load_dataset(Digits(), seed=1).fingerprint,
        load_dataset(Digits(), size=16).fingerprint,
    }
    path = next((tmp_path / "moved" / "train" / "3").iterdir())
    content = bytearray(path.read_bytes())
    path.write_bytes(blob(0))
    others.add(load_dataset(Folder(path=str(tmp_path / "moved"))).fingerprint)
    path.write_bytes(content)
    path.rename(path.parent.parent / "4" / path.name)
    others.add(load_dataset(Folder(path=str(tmp_path / "moved"))).fingerprint)
    assert len(others | {first}) == 6


def test_summary_counts(folder):
    summary = load_dataset(folder()).summary()
    assert summary["images"] == {"train": 180, "val": 60, "test": 60}
    expected = [int(((DATA.target[:300] == k) & (np.arange(300) % 5 == 0)).sum()) for k in range(10)]
    assert summary["per_class"]["test"] == expected


def test_a_full_disk_under_the_list_is_told_as_one(folder, tmp_path, monkeypatch):
    def full(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = folder({2: EMPTY})
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StillroomError) as caught:
        load_dataset(source, report=tmp_path / "run")
    assert caught.value.code == "SR-R501" and not list((tmp_path / "run").iterdir())
