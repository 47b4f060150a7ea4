"""COCO's json: its layouts, and everything that can be wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kit.annotations import code, picture, why
from kit.scenes import coco_scenes

from stillroom.data.infer_source import infer_source
from stillroom.data.sources.coco import Coco


def write(
    file: Path, *, boxes=((1, 7, [2, 3, 10, 20], 0),), images=((1, "0000.png"),), categories=((7, "cat"),)
) -> str:
    """A file with annotations (image, category, bbox, iscrowd), images (id, name) and categories (id, name)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 64} for i, name in images],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k, "bbox": box, "iscrowd": crowd}
            for n, (i, k, box, crowd) in enumerate(boxes)
        ],
        "categories": [{"id": k, "name": name} for k, name in categories],
    }
    file.write_text(json.dumps(content))
    return str(file)


def test_crowds_and_sparse_categories(tmp_path):
    picture(tmp_path / "images" / "0000.png")
    boxes = [(1, 90, [2, 3, 10, 20], 1), (1, 5, [0.5, 0, 4.25, 8], 0), (1, 6, [0, 0, 1, 1], 0)]
    source = Coco(path=write(tmp_path / "x.json", boxes=boxes, categories=[(90, "z"), (5, "b"), (17, "a")]))
    found = source.boxes(0)
    assert source.classes == ("b", "a", "z") and source.splits == {}
    assert found.boxes.tolist() == [[2, 3, 12, 23], [0.5, 0, 4.75, 8], [0, 0, 1, 1]]
    assert found.labels.tolist() == [2, 0, -1] and found.crowd.tolist() == [True, False, False]


def test_coco_s_own_layout(tmp_path):
    """Images beside `annotations`, in folders of the split and year; captions are no boxes."""
    for split in ("train", "val"):
        picture(tmp_path / f"{split}2017" / "0000.png")
        write(tmp_path / "annotations" / f"instances_{split}2017.json")
        (tmp_path / "annotations" / f"captions_{split}2017.json").write_text('{"images": [], "annotations": []}')
    assert infer_source(str(tmp_path)) == "coco"
    source = Coco(path=str(tmp_path))
    assert [source.name(i) for i in range(2)] == [str(tmp_path / f"{s}2017" / "0000.png") for s in ("train", "val")]
    assert {name: items.tolist() for name, items in source.splits.items()} == {"train": [0], "val": [1]}


def test_a_json_in_each_split_s_folder(tmp_path):
    for split in ("train", "valid", "test"):
        picture(tmp_path / split / "0000.png")
        write(tmp_path / split / "_annotations.coco.json")
    source = Coco(path=str(tmp_path))
    assert {name: items.tolist() for name, items in source.splits.items()} == {"train": [0], "val": [1], "test": [2]}
    assert source.name(1) == str(tmp_path / "valid" / "0000.png")


def test_the_folder_of_images_may_be_named(tmp_path):
    picture(tmp_path / "elsewhere" / "0000.png")
    file = write(tmp_path / "data" / "train.json")
    said = why(lambda: Coco(path=file))
    assert "'0000.png' is in none of the folders" in said and "data.images" in said
    for images in ("../elsewhere", str(tmp_path / "elsewhere")):
        source = Coco(path=file, images=images)
        assert source.images == images and source.boxes(0).size == (64, 64)
        assert source.read(0) == (tmp_path / "elsewhere" / "0000.png").read_bytes()
    assert code(lambda: Coco(path=file, images="nowhere")) == "SR-D101"


def test_further_images_are_for_training_and_unknown(tmp_path):
    root = coco_scenes(tmp_path / "data")
    picture(root / "more" / "a" / "1.png", root / "more" / "2.png", size=(40, 30))
    (root / "more" / "notes.txt").write_text("no image")
    source = Coco(path=str(root), unlabelled="more")
    assert source.num_unlabelled == 2 and len(source.labels) == 26 and source.labels[24:].tolist() == [-1, -1]
    assert [Path(source.name(i)).name for i in (24, 25)] == ["2.png", "1.png"]
    found = source.boxes(24)
    assert not found.known and found.size == (30, 40) and found.boxes.shape == (0, 4)
    assert all((items < 24).all() for items in source.splits.values())


def test_images_outside_of_their_folder_are_refused(tmp_path):
    picture(tmp_path / "secret.png", tmp_path / "data" / "images" / "0000.png")
    file = write(tmp_path / "data" / "x.json", images=[(1, "0000.png"), (2, "../../secret.png")])
    assert code(lambda: Coco(path=file)) == "SR-S201"
    assert len(Coco(path=file, allow_outside=True).labels) == 2
    (tmp_path / "data" / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    file = write(tmp_path / "data" / "x.json", images=[(1, "0000.png"), (2, "link.png")])
    assert code(lambda: Coco(path=file)) == "SR-S201"
    file = write(tmp_path / "data" / "x.json", images=[(1, "0000.png"), (2, str(tmp_path / "secret.png"))])
    assert code(lambda: Coco(path=file)) == "SR-S201"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it is not json"),
        ('{"images": [', "it is not json"),
        ("[" * 100_000, "it is not json"),
        ("[1, 2]", "no list called 'images'"),
        ('{"images": [], "annotations": {}, "categories": []}', "no list called 'annotations'"),
        ('{"images": [3], "annotations": [], "categories": []}', "entry of 'images'"),
        ('{"images": [], "annotations": [], "categories": []}', "no categories"),
    ],
    ids=lambda text: text[:30],
)
def test_a_file_that_is_not_coco_s(tmp_path, text, expected):
    (tmp_path / "x.json").write_text(text)
    assert expected in why(lambda: Coco(path=str(tmp_path / "x.json")))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"boxes": [(2, 7, [0, 0, 1, 1], 0)]}, "image 2, which is not listed"),
        ({"boxes": [(1, 7, [0, 0, 1], 0)]}, "no bbox of four numbers"),
        ({"boxes": [(1, 7, ["0", 0, 1, 1], 0)]}, "no bbox of four numbers"),
        ({"boxes": [(1, "7", [0, 0, 1, 1], 0)]}, "category_id '7'"),
        ({"images": [(1, "0000.png"), (1, "0000.png")]}, "image 1 "),
        ({"images": [(1, "0000.png"), (2, 5)]}, "image 2 has no file_name"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_annotations_that_make_no_sense(tmp_path, changes, expected):
    picture(tmp_path / "0000.png")
    assert expected in why(lambda: Coco(path=write(tmp_path / "x.json", **changes)))


def test_one_id_for_two_names(tmp_path):
    picture(tmp_path / "0000.png")
    write(tmp_path / "train.json")
    write(tmp_path / "test.json", categories=[(7, "dog")])
    assert "category 7 is 'dog' here and 'cat' in another file" in why(lambda: Coco(path=str(tmp_path)))


def test_a_size_that_is_not_declared_is_read_from_the_image(tmp_path):
    picture(tmp_path / "0000.png", size=(50, 20))
    content = json.loads(Path(write(tmp_path / "x.json")).read_text())
    del content["images"][0]["width"]
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert Coco(path=str(tmp_path / "x.json")).boxes(0).size == (20, 50)
