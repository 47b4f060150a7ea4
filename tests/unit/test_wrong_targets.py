"""Each thing that can be wrong with boxes and masks is found and told; and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit.annotations import Listed, codes, noted, only, source
from kit.scenes import coco_scenes, mask_scenes
from PIL import Image

from stillroom.data.dataset import load_dataset
from stillroom.data.inspect import inspect, inspect_targets, summary
from stillroom.data.loader import in_order
from stillroom.data.sources.coco import Coco
from stillroom.data.sources.masks import Masks
from stillroom.data.sources.voc import Voc


@pytest.mark.parametrize("kind", ["coco", "voc", "masks"])
def test_sound_sets_give_no_finding_but_for_images_without_a_box(tmp_path, kind):
    made = source(kind, tmp_path)
    found = inspect(made, load_dataset(made))
    if kind == "masks":
        assert found == []
        return
    assert codes(found) == ["SR-D127"] and found[0].severity == "warning"
    assert found[0].failure.values["count"] == 6 and "0003.png" in found[0].failure.why


GOOD = [1.0, 1.0, 9.0, 9.0]


@pytest.mark.parametrize(
    ("code", "box", "label", "remains"),
    [
        ("SR-D123", [5, 5, 5, 9], 0, 0),
        ("SR-D123", [5, 5, 4, 9], 0, 0),
        ("SR-D123", [float("nan"), 5, 9, 9], 0, 0),
        ("SR-D123", [5, 5, float("inf"), 9], 0, 0),
        ("SR-D124", [-8, 2, 6, 9], 0, 1),
        ("SR-D124", [50, 2, 60, 9], 0, 0),
        ("SR-D125", GOOD, 0, 0),
        ("SR-D126", [2, 2, 9, 9], -1, 0),
        ("SR-D126", [2, 2, 9, 9], 2, 0),
    ],
)
def test_boxes_that_are_left_out_or_cut_and_told(code, box, label, remains):
    made = Listed(*[noted(GOOD, [3, 3, 8, 8], labels=[0, 1])] * 5, noted(GOOD, box, labels=[0, label]))
    data = load_dataset(made, size=16)
    found = [f for f in inspect(made, data) if f.code != "SR-D110"]
    assert codes(found) == [code]
    assert found[0].severity == "warning" and found[0].failure.values["count"] == 1
    assert found[0].failure.values["examples"] == "photo 5"
    (batch,) = in_order(data.splits["test"], 2)
    assert (batch.target["labels"][1] >= 0).sum() == 1 + remains
    assert batch.target["boxes"].min() >= 0 and batch.target["boxes"].max() <= 1
    if remains:
        assert batch.target["boxes"][1, 1].tolist() == pytest.approx([0, 0.1, 0.15, 0.45])


def test_a_pixel_beyond_the_edge_is_cut_and_not_told():
    made = Listed(*[noted([-0.6, 3, 41, 8], [3, 3, 8, 8], labels=[0, 1])] * 3)
    data = load_dataset(made, size=16)
    assert codes(inspect(made, data)) == ["SR-D112"] or codes(inspect(made, data)) == []
    (batch,) = in_order(data.splits["test"], 1)
    assert batch.target["boxes"][0, 0].tolist() == pytest.approx([0, 0.15, 1, 0.4])


def test_the_same_place_of_two_classes_or_a_crowd_is_no_copy():
    made = Listed(*[noted(GOOD, GOOD, GOOD, labels=[0, 1, 0], crowd=[False, False, True])] * 3)
    assert "SR-D125" not in codes(inspect_targets(made, load_dataset(made, size=16)))


def test_images_of_another_size_than_declared():
    made = Listed(*[noted(GOOD, labels=[n % 2]) for n in range(5)], noted(GOOD, size=(20, 41)))
    found = only(inspect(made, load_dataset(made, size=16)), "SR-D128")
    assert found.values["count"] == 1 and "photo 5: declared 41×20, is 40×20" in found.why


def test_one_class_is_enough_for_boxes_and_none_is_not():
    made = Listed(*[noted(GOOD)] * 6, classes=("cell",))
    assert codes(inspect_targets(made, load_dataset(made, size=16))) == []
    made = Listed(*[noted()] * 6)
    found = {finding.code: finding.severity for finding in inspect_targets(made, load_dataset(made, size=16))}
    assert found["SR-D111"] == "error" and found["SR-D127"] == "warning"


def test_a_class_that_no_image_has(tmp_path):
    made = Listed(*[noted(GOOD, GOOD, labels=[0, 1]), *[noted(GOOD)] * 5])
    found = only(inspect_targets(made, load_dataset(made, size=16)), "SR-D110")
    assert found.values["name"] == "b" and found.values["split"] == "val and test" and "1 boxes of it" in found.why


def test_masks_of_another_size(tmp_path):
    root = mask_scenes(tmp_path)
    Image.fromarray(np.ones((32, 32), np.uint8)).save(root / "val" / "labels" / "0016.png")
    Image.fromarray(np.ones((32, 40), np.uint8)).save(root / "test" / "labels" / "0020.png")
    made = Masks(path=str(root))
    data = load_dataset(made, max_bad=0.1)
    found = inspect(made, data)
    assert only(found, "SR-D129").values["count"] == 1 and "0016.png: 64×64, mask 32×32" in str(only(found, "SR-D129"))
    assert "40×32 and the image 64×64" in only(found, "SR-D122").why
    assert len(data.splits["test"]) == 3, "whose mask is of another picture is left out"
    assert (data.splits["val"].take(np.array([0]))[1] == 1).all()


def test_numbers_that_are_no_class(tmp_path):
    root = mask_scenes(tmp_path)
    file = root / "train" / "labels" / "0000.png"
    mask = np.asarray(Image.open(file)).copy()
    mask[0, :5] = [4, 9, 9, 254, 3]
    Image.fromarray(mask).save(file)
    made = Masks(path=str(root))
    data = load_dataset(made)
    found = only(inspect_targets(made, data), "SR-D130")
    assert found.values["count"] == 1 and found.values["numbers"] == "4, 9, 254" and "0000.png" in found.why
    assert data.splits["train"].take(np.array([0]))[1][0, 0, :5].tolist() == [-1, -1, -1, -1, 3]


def test_what_has_no_partner_is_told(tmp_path):
    root = mask_scenes(tmp_path)
    (root / "train" / "labels" / "0002.png").unlink()
    made = Masks(path=str(root))
    found = only(inspect_targets(made, load_dataset(made)), "SR-D133")
    assert found.values["count"] == 1 and "0002.png" in found.why and "without masks" in found.what


def test_a_missing_image_is_a_bad_image_like_any_other(tmp_path):
    root = coco_scenes(tmp_path)
    (root / "images" / "0002.png").unlink()
    (root / "images" / "0022.png").write_bytes(b"text")
    made = Coco(path=str(root))
    data = load_dataset(made, max_bad=0.2)
    assert sorted(f.code for f in inspect(made, data) if f.code < "SR-D104") == ["SR-D102", "SR-D103"]
    (batch,) = in_order(data.splits["train"], 16)
    assert Path(data.splits["train"].name_of(int(batch.keys[2]))).stem == "0003" and len(data.splits["test"]) == 3
    assert (batch.target["labels"][2] == -1).all(), "with the boxes of its replacement"


def test_the_summary_is_plain_data(tmp_path):
    import json

    made = source("voc", tmp_path)
    data = load_dataset(made)
    told = json.loads(json.dumps(summary(data, inspect(made, data))))
    assert [finding["code"] for finding in told["findings"]] == ["SR-D127"]


def test_blood_cells(shared):
    made = Voc(path=str(shared / "bccd"))
    data = load_dataset(made, size=64)
    found = inspect(made, data)
    assert codes(found) == ["SR-D123"]
    assert found[0].failure.values["count"] == 2 and "BloodImage_00338" in found[0].failure.why
    assert data.summary()["per_class"]["train"] == [147, 1641, 144]
