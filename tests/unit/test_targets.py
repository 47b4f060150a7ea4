"""Boxes and masks on their way into batches, and everything that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kit.annotations import Listed, codes, noted, only, source
from kit.scenes import coco_scenes, mask_scenes, scenes, split_of, voc_scenes
from PIL import Image

from stillroom.config.schema import Augment
from stillroom.data.dataset import load_dataset
from stillroom.data.decode import decode
from stillroom.data.inspect import inspect, inspect_targets
from stillroom.data.loader import Loader, in_order
from stillroom.data.resize import resize_square
from stillroom.data.sources.coco import Coco
from stillroom.data.sources.masks import Masks
from stillroom.data.sources.voc import Voc
from stillroom.errors import StillroomError

MADE = {scene.name: scene for scene in scenes()}
POLICY = Augment(flip=True, shift=0.1, zoom=0.2, rotate=10)


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_a_batch_holds_each_image_s_boxes_in_shares(tmp_path, kind, memory_gb):
    data = load_dataset(source(kind, tmp_path), memory_gb=memory_gb)
    assert data.kind == "boxes" and data.size == 64
    seen = 0
    for split in data.splits.values():
        for batch in in_order(split, 5):
            target = batch.target
            most = max(1, *(len(MADE[Path(split.name_of(int(i))).stem].labels) for i in batch.keys))
            assert target["boxes"].shape == (len(batch), most, 4) and target["boxes"].dtype == torch.float32
            for row, item in enumerate(batch.keys.tolist()):
                scene = MADE[Path(split.name_of(item)).stem]
                count = len(scene.labels)
                assert torch.equal(batch.images[row, 0], torch.from_numpy(scene.image / np.float32(255)))
                assert target["labels"][row].tolist() == [*scene.labels.tolist(), *[-1] * (most - count)]
                assert np.abs(target["boxes"][row, :count].numpy() * 64 - scene.boxes).max(initial=0) < 1e-5
                assert (target["boxes"][row, count:] == 0).all()
                assert target["size"][row].tolist() == [64, 64] and bool(target["known"][row])
                seen += count
    assert seen == sum(len(scene.labels) for scene in MADE.values())


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_a_batch_holds_each_image_s_mask(tmp_path, memory_gb):
    data = load_dataset(source("masks", tmp_path), memory_gb=memory_gb)
    assert data.kind == "masks"
    for split in data.splits.values():
        for batch in in_order(split, 5):
            for mask, image, item in zip(batch.target, batch.images, batch.keys.tolist(), strict=True):
                scene = MADE[Path(split.name_of(item)).stem]
                assert torch.equal(image[1], torch.from_numpy(scene.image / np.float32(255)))
                assert np.array_equal(mask.numpy(), np.where(scene.mask == 255, -1, scene.mask.astype(int)))


@pytest.mark.parametrize("size", [48, 100])
def test_a_mask_of_another_size_takes_the_nearest_pixels(tmp_path, size):
    split = load_dataset(source("masks", tmp_path), size=size).splits["train"]
    _, masks, items = split.take(np.arange(4))
    at = np.floor((np.arange(size) + 0.5) * 64 / size).astype(int)
    for mask, item in zip(masks.numpy(), items.tolist(), strict=True):
        stored = MADE[Path(split.name_of(item)).stem].mask.astype(int)[at][:, at]
        assert np.array_equal(mask, np.where(stored == 255, -1, stored))


@pytest.mark.parametrize("kind", ["coco", "masks"])
def test_memory_or_not_is_the_same_and_batch_n_is_a_function_of_n(tmp_path, kind):
    made = source(kind, tmp_path)
    kept, read = (load_dataset(made, size=48, memory_gb=memory).splits["train"] for memory in (1.0, 0.0))
    one = list(zip(range(4), Loader(kept, batch=5, seed=3, augment=POLICY)(0), strict=False))
    for n, batch in one:
        again = Loader(read, batch=5, seed=3, augment=POLICY).at(n)
        assert torch.equal(batch.images, again.images) and torch.equal(batch.keys, again.keys)
        if kind == "masks":
            assert torch.equal(batch.target, again.target)
        else:
            assert all(torch.equal(batch.target[name], again.target[name]) for name in batch.target)


@pytest.mark.parametrize("kind", ["coco", "masks"])
def test_the_parts_of_two_processes_are_the_batch_of_one(tmp_path, kind):
    split = load_dataset(source(kind, tmp_path)).splits["train"]
    whole = Loader(split, batch=8, seed=1, augment=POLICY).at(2)
    for rank in range(2):
        part = Loader(split, batch=8, seed=1, augment=POLICY, rank=rank, world=2).at(2)
        mine = slice(4 * rank, 4 * rank + 4)
        assert torch.equal(part.images, whole.images[mine])
        if kind == "masks":
            assert torch.equal(part.target, whole.target[mine])
            continue
        most = part.target["labels"].shape[1]
        for name, value in part.target.items():
            expected = whole.target[name][mine]
            assert torch.equal(value, expected[:, :most] if expected.ndim > 1 and name != "size" else expected)


def test_images_are_stretched_and_shares_stay_shares():
    data = load_dataset(Listed(*[noted([10, 5, 30, 20])] * 6), size=32)
    batch = next(in_order(data.splits["train"], 1))
    raw = data.source.read(int(batch.keys[0]))
    assert np.array_equal(batch.images[0], resize_square(raw, size=32).transpose(2, 0, 1) / np.float32(255))
    assert batch.target["boxes"].tolist() == [[[0.25, 0.25, 0.75, 1.0]]]
    assert batch.target["size"].tolist() == [[20, 40]]


def test_the_targets_move_with_the_images_in_a_loader():
    """The painted box, found in the batch's pixels, is the batch's box."""

    class Painted(Listed):
        def read(self, item):
            image = np.zeros((64, 64, 3), np.uint8)
            left, top, right, bottom = self.noted[item].boxes[0].astype(int)
            image[top:bottom, left:right] = 255
            return image

    draw = np.random.default_rng(0)
    corners = draw.integers(4, 30, (30, 2))
    boxes = np.concatenate([corners, corners + draw.integers(8, 30, (30, 2))], axis=1)
    data = load_dataset(Painted(*[noted(box, size=(64, 64)) for box in boxes]))
    batch = Loader(data.splits["train"], batch=10, seed=0, augment=Augment(flip=True, shift=0.3)).at(7)
    for image, box, label in zip(batch.images, batch.target["boxes"][:, 0], batch.target["labels"][:, 0], strict=True):
        if label == 0:
            rows, columns = (np.flatnonzero((image[0] == 1).any(axis)) for axis in (1, 0))
            assert np.allclose(box * 64, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1e-4)
    assert (batch.target["labels"] == 0).any()


def test_batches_without_a_box_travel():
    data = load_dataset(Listed(*[noted()] * 9), size=16)
    for batch in (
        Loader(data.splits["train"], batch=4, seed=0, augment=POLICY).at(0),
        next(in_order(data.splits["test"], 2)),
    ):
        count = len(batch)
        assert batch.target["boxes"].shape == (count, 1, 4) and (batch.target["labels"] == -1).all()
        assert batch.target["known"].all() and not batch.target["crowd"].any()
        assert [len(part) for part in batch.split(2)] == [count // 2] * 2


def test_a_mask_of_nothing_but_void_travels(tmp_path):
    root = mask_scenes(tmp_path)
    for file in (root / "train" / "labels").iterdir():
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(file)
    made = Masks(path=str(root))
    data = load_dataset(made)
    batch = Loader(data.splits["train"], batch=4, seed=0, augment=POLICY).at(0)
    assert (batch.target == -1).all()
    assert only(inspect_targets(made, data), "SR-D131").values["count"] == 16


def test_crowds_and_unknown_images_reach_the_batch(tmp_path):
    root = coco_scenes(tmp_path)
    for n in range(3):
        scan = np.random.default_rng(n).integers(0, 256, (40, 64, 3), dtype=np.uint8)
        (root / "more").mkdir(exist_ok=True)
        Image.fromarray(scan).save(root / "more" / f"{n}.png")
    made = Coco(path=str(root), unlabelled="more")
    data = load_dataset(made)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 19, "val": 4, "test": 4}
    (batch,) = in_order(data.splits["train"], 19)
    assert batch.target["known"].tolist() == [True] * 16 + [False] * 3
    assert batch.target["size"][16:].tolist() == [[40, 64]] * 3 and (batch.target["labels"][16:] == -1).all()
    assert data.summary()["images"] == {"train": 19, "val": 4, "test": 4}
    told = [f for f in inspect_targets(made, data) if f.code == "SR-D127"]
    assert told[0].failure.values["count"] == 6, "nobody says that there is nothing in the unknown ones"
    crowded = load_dataset(Listed(*[noted([1, 1, 9, 9], [2, 2, 9, 9], crowd=[True, False])] * 6), size=16)
    assert next(in_order(crowded.splits["train"], 1)).target["crowd"].tolist() == [[True, False]]
    assert crowded.summary()["per_class"]["train"] == [2, 0], "a crowd is not counted"


def test_unknown_images_change_no_split_that_is_carved(tmp_path):
    root = coco_scenes(tmp_path, split=False)
    before = load_dataset(Coco(path=str(root))).splits
    (root / "more").mkdir()
    Image.fromarray(scenes(1)[0].image).save(root / "more" / "1.png")
    after = load_dataset(Coco(path=str(root), unlabelled="more")).splits
    assert all(np.array_equal(before[name].listed, after[name].listed) for name in ("val", "test"))
    assert after["train"].listed.tolist() == [*before["train"].listed.tolist(), 24]


@pytest.mark.parametrize("kind", ["voc", "masks"])
def test_carved_splits_share_out_every_class(tmp_path, kind):
    made = (
        voc_scenes(tmp_path, images=90, split=False) if kind == "voc" else mask_scenes(tmp_path, images=90, split=False)
    )
    data = load_dataset(Voc(path=str(made)) if kind == "voc" else Masks(path=str(made)))
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == pytest.approx([58, 14, 18], abs=3)
    counts = np.array(list(data.summary()["per_class"].values()))
    assert (counts >= 3).all()


# What is known of a data set


def test_counts_of_boxes_and_of_images_with_a_class(tmp_path):
    boxes, masks = (
        load_dataset(source("coco", tmp_path / "a")).summary(),
        load_dataset(source("masks", tmp_path / "b")).summary(),
    )
    made = list(enumerate(MADE.values()))
    for split in ("train", "val", "test"):
        mine = [scene for number, scene in made if split_of(number, len(made)) == split]
        assert boxes["per_class"][split] == [sum(int((s.labels == k).sum()) for s in mine) for k in range(3)]
        assert masks["per_class"][split] == [sum(bool((s.mask == k).any()) for s in mine) for k in range(4)]


def test_the_fingerprint_tells_annotations_apart(tmp_path):
    def print_of(kind: str, folder: str, change=None) -> str:
        root = tmp_path / folder
        made = mask_scenes(root) if kind == "masks" else voc_scenes(root)
        if change:
            change(root)
        return load_dataset(Masks(path=str(made)) if kind == "masks" else Voc(path=str(made))).fingerprint

    def edit(split: str):
        def change(root: Path):
            name = next(scene.name for n, scene in enumerate(MADE.values()) if split_of(n, 24) == split)
            if (file := root / "Annotations" / f"{name}.xml").exists():
                text = file.read_text()
                assert "<ymax>" in text
                file.write_text(text.replace("<ymax>", "<ymax>1", 1))
            else:
                file = root / split / "labels" / f"{name}.png"
                mask = np.asarray(Image.open(file)).copy()
                mask[5, 5] = 2
                Image.fromarray(mask).save(file)

        return change

    for kind in ("voc", "masks"):
        first = print_of(kind, f"{kind}1")
        assert print_of(kind, f"{kind}2") == first, "another folder"
        assert print_of(kind, f"{kind}3", edit("train")) != first
        assert print_of(kind, f"{kind}4", edit("val")) != first
    assert print_of("voc", "voc5", edit("test")) != print_of("voc", "voc6")


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_an_image_whose_mask_is_no_use_is_replaced_with_its_mask(tmp_path, memory_gb):
    root = mask_scenes(tmp_path)
    bad = {"0001": b"", "0002": b"text", "0005": None}
    for name, blob in bad.items():
        file = root / "train" / "labels" / f"{name}.png"
        if blob is None:
            Image.fromarray(np.zeros((64, 20), np.uint8)).save(file)
        else:
            file.write_bytes(blob)
    made = Masks(path=str(root))
    data = load_dataset(made, max_bad=0.5, memory_gb=memory_gb)
    train = data.splits["train"]
    images, masks, items = train.take(np.arange(16))
    assert [Path(train.name_of(int(i))).stem for i in items[[1, 2, 5]]] == ["0003", "0003", "0006"]
    for image, mask, item in zip(images, masks, items, strict=True):
        scene = MADE[Path(train.name_of(int(item))).stem]
        assert np.array_equal(image[0], scene.image)
        assert np.array_equal(mask.numpy(), np.where(scene.mask == 255, -1, scene.mask.astype(int)))
    assert sorted(bad.code for bad in data.bad) == ["SR-D103", "SR-D103", "SR-D122"]
    with pytest.raises(StillroomError, match="SR-D107"):
        load_dataset(made, max_bad=0.05).splits["train"].take(np.arange(16))
    found = codes(inspect(made, load_dataset(made, max_bad=0.5)))
    assert found.count("SR-D103") == 2 and found.count("SR-D122") == 1


def test_stretch_is_the_whole_image():
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, 15:] = 200
    square = resize_square(picture, size=20)
    assert square.shape == (20, 20, 3) and (square[:, :8] == 0).all() and (square[:, 12:] == 200).all()
    assert resize_square(square, size=20) is square
    assert resize_square(picture[:, :, :1], size=20).shape == (20, 20, 1)


def test_decoded_pixels_are_those_that_boxes_are_drawn_on(tmp_path):
    """An image on its side is turned, and declared as it is seen: no finding."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations").mkdir()
    for name in "abcdef":
        photo = np.random.default_rng(ord(name)).integers(0, 256, (20, 40, 3), dtype=np.uint8)
        Image.fromarray(photo).save(tmp_path / "JPEGImages" / f"{name}.jpg", exif=exif)
        box = "<xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>30</ymax>"
        size = "<size><width>20</width><height>40</height></size>"
        text = f"<annotation>{size}<object><name>x</name><bndbox>{box}</bndbox></object></annotation>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    made = Voc(path=str(tmp_path))
    data = load_dataset(made, size=16)
    assert codes(inspect(made, data)) == []
    assert decode(made.read(0), channels=3).shape == (40, 20, 3)
    assert next(in_order(data.splits["train"], 1)).target["size"].tolist() == [[40, 20]]
