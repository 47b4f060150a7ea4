"""COCO's json and VOC's xml: what is read, what it means, and everything that can be wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit.annotations import code
from kit.scenes import CLASSES, coco_scenes, scenes, split_of, voc_scenes

from stillroom.data.infer_source import infer_source
from stillroom.data.sources.coco import Coco
from stillroom.data.sources.voc import Voc
from stillroom.errors import StillroomError


def item(source, name: str) -> int:
    return next(i for i in range(len(source.labels)) if Path(source.name(i)).stem == name)


@pytest.fixture(params=["coco", "voc"])
def source(request, tmp_path):
    if request.param == "coco":
        return Coco(path=str(coco_scenes(tmp_path / "data")))
    return Voc(path=str(voc_scenes(tmp_path / "data")), classes=CLASSES)


def test_every_scene_is_read_as_it_was_made(source):
    assert source.kind == "boxes" and source.classes == CLASSES and source.channels == 3
    made = scenes()
    for number, scene in enumerate(made):
        i = item(source, scene.name)
        found = source.boxes(i)
        assert np.array_equal(found.boxes, scene.boxes) and np.array_equal(found.labels, scene.labels)
        assert found.size == (64, 64) and found.known and not found.crowd.any()
        assert i in source.splits[split_of(number, len(made))]
        raw = source.read(i)
        assert raw == Path(source.name(i)).read_bytes()


def test_what_it_is_stratified_by_is_the_rarest_class_in_it(source):
    made = scenes()
    images = [sum(k in scene.labels for scene in made) for k in range(3)]
    for scene in made:
        label = source.labels[item(source, scene.name)]
        if not len(scene.labels):
            assert label == -1
            continue
        assert images[label] == min(images[k] for k in scene.labels) and label in scene.labels


def test_grey_images_have_one_channel(tmp_path):
    assert Coco(path=str(coco_scenes(tmp_path, channels=1))).channels == 1


def test_guess(tmp_path):
    assert infer_source(str(coco_scenes(tmp_path / "a"))) == "coco"
    assert infer_source(str(tmp_path / "a" / "train.json")) == "coco"
    assert infer_source(str(voc_scenes(tmp_path / "b"))) == "voc"
    coco_scenes(tmp_path / "b")
    with pytest.raises(StillroomError, match="it could be coco or voc"):
        infer_source(str(tmp_path / "b"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "settings.json").write_text('{"images": 3}')
    assert infer_source(str(tmp_path / "c")) == "coco", "it looks like one"
    assert code(lambda: Coco(path=str(tmp_path / "c"))) == "SR-D120", "and is told that it is none"
    (tmp_path / "c" / "settings.json").write_text('{"colour": 3}')
    assert code(lambda: infer_source(str(tmp_path / "c"))) == "SR-D109"


def test_blood_cells(shared):
    """The same 240 images twice: xml with two boxes that have no area, json without those."""
    coco, voc = (kind(path=str(shared / "bccd")) for kind in (Coco, Voc))
    assert coco.classes == ("RBC", "WBC", "Platelets") and voc.classes == ("Platelets", "RBC", "WBC")
    for split, images, boxes in (("train", 140, 1932), ("val", 40, 546), ("test", 60, 782)):
        assert len(coco.splits[split]) == len(voc.splits[split]) == images
        assert sum(len(coco.boxes(i).boxes) for i in coco.splits[split].tolist()) == boxes
    edges = Voc(path=str(shared / "bccd"), pixels="edges")
    names = {Path(edges.name(i)).name: i for i in range(240)}
    for i in range(240):
        boxes = edges.boxes(names[Path(coco.name(i)).name]).boxes
        kept = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
        assert sorted(coco.boxes(i).boxes.tolist()) == sorted(kept.tolist())
